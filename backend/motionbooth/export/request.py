"""What an export writes from, in the frames and the size of its engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Shot

from motionbooth.evaluation.paper_figures import prompt_without_tokens
from motionbooth.export.engine_shot import engine_shot
from motionbooth.generation.video import Frames


@dataclass(frozen=True)
class ExportRequest:
    """A shot for an engine. `folder` receives the files. `shot` is the original, with the model's frames."""

    spec: GenerateSpec
    folder: Path
    size: tuple[int, int]
    """Width and height in pixels, `frames` and `fps`: of the engine's clip."""
    frames: int
    fps: float
    guide: Frames | None = None
    """(F, H, W, 3): a render of the shot, and `depth` its depth, at the engine's frames and size; None if not given."""
    depth: Frames | None = None
    first_frame: Frames | None = None
    """(1, H, W, 3)"""
    pictures: tuple[Path, ...] = ()
    """Of the subjects."""

    @property
    def prompt(self) -> str:
        """The prompt without the tokens of trained subjects, which no other model knows."""
        return prompt_without_tokens(self.spec)

    def shot_at(self, frames: int) -> Shot:
        """The shot at `frames` moments, in the engine's frame."""
        return engine_shot(self.spec.shot, frames, self.size)

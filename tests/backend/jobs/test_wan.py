"""A worker's jobs on a base of the other family: nothing but the model's name differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from motionbooth.evaluation.report import MotionReport
from motionbooth.generation.video import read_clip
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.jobs.runner import run_job
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from refused import refused
from tiny_wan import save_wan


class Log:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def plan(self, stages: Sequence[Stage]) -> None:
        self.planned = stages

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self.seen.append(stage)


@pytest.fixture
def tinywan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_wan(tmp_path / "models" / "tinywan", "unipc")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))


@pytest.mark.usefixtures("tinywan")
def test_a_shot_becomes_a_clip_with_previews_and_a_report(tmp_path: Path) -> None:
    track = SubjectTrack("dog", "dog", [Box(0.1 + 0.05 * f, 0.2, 0.5 + 0.05 * f, 0.7) for f in range(9)], token="red")
    shot = Shot("s", 1, 14, 24, 64, 48, CameraPath.straight(0.5, 0, 9), [track])
    spec = GenerateSpec(shot, "a red dog on the grass", model="tinywan", num_inference_steps=3)
    log, shown, cache = Log(), [], ModelCache()
    results = run_job(spec, Path, tmp_path, log, cache, lambda *picture: shown.append(picture))
    frames, fps = read_clip(results["clip"])
    assert (frames.shape, fps) == ((14, 48, 64, 3), 24)
    report = msgspec.json.decode(results["report"].read_bytes(), type=MotionReport)
    assert len(report.camera) == 8
    assert {"sampling", "decoding"} <= {stage.lower() for stage in log.seen}
    assert shown
    first = results["clip"].read_bytes()
    assert run_job(spec, Path, tmp_path, log, cache)["clip"].read_bytes() == first, "of the same, warm model"


@pytest.mark.usefixtures("tinywan")
def test_training_is_refused_until_it_is_there(tmp_path: Path) -> None:
    subject = SubjectSpec("Red", "sks", "dog", [Picture("0" * 64)])
    with refused(InvalidInput, model="Tiny Wan"):
        run_job(TrainSpec(subject, model="tinywan", steps=1), Path, tmp_path, Log())

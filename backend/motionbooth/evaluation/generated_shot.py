"""A generated shot: its clip, its spec and its subjects' appearances; its motion report and its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import SubjectTrack
from motionbooth_protocol.picture_files import pictures_with_masks
from motionbooth_protocol.wording import in_words
from numpy.typing import NDArray
from rich.table import Table

from motionbooth.evaluation.contact_sheet import Row, write_contact_sheet
from motionbooth.evaluation.identity import Views
from motionbooth.evaluation.report import MotionReport, shot_report
from motionbooth.generation.script import NO_PLACEHOLDERS, Placeholders, read_script
from motionbooth.generation.video import read_clip, spread_evenly
from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import read_card
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.masks import MaskedPicture, picture_with_mask


class _ShotFile(msgspec.Struct):
    """The part of the extension's shot.json that is needed; a script has no such field."""

    generate: GenerateSpec | None = None


@dataclass(frozen=True)
class GeneratedShot:
    """A clip, and what it was generated from."""

    spec: GenerateSpec
    frames: NDArray[np.uint8]  # (F, H, W, 3) RGB, the model's frames
    pictures: Mapping[str, Sequence[MaskedPicture]]
    """The training pictures of each subject, by its name. Its appearance is taken from them if there are any."""
    appearances: Mapping[str, Appearance] = field(default_factory=dict)
    """The appearances of other subjects, by name."""

    def with_subject(self, subject: Path) -> GeneratedShot:
        """The same with the appearance in a trained subject's file. Raises InvalidInput if the shot has no such one."""
        card = read_card(subject)
        phrase = card.phrase
        names = [track.name for track in self.spec.shot.subjects if track.phrase == phrase]
        if not names:
            raise InvalidInput(
                '{subject} is a "{phrase}", but the shot has none. Choose the shot that it appears in.',
                subject=subject,
                phrase=phrase,
            )
        if not card.appearance:
            raise InvalidInput(
                "{subject} has no record of its appearance. Train it again, or give its --pictures.", subject=subject
            )
        appearance = Appearance.from_text(card.appearance)
        return replace(self, appearances={**self.appearances, **dict.fromkeys(names, appearance)})

    @classmethod
    def load(cls, clip: Path, spec: GenerateSpec, pictures: Mapping[str, Sequence[Path]]) -> GeneratedShot:
        """Read a clip. `pictures`: the training pictures of each subject, by its name. Raises InvalidInput."""
        frames, _ = read_clip(clip)
        shot = spec.shot
        shortest = min(shot.frames, shot.scene_frames)
        if len(frames) < shortest:
            raise InvalidInput(
                "{clip} has {found} frames, and the shot {expected} ({model_frames} of the "
                "model): it is not a whole clip of this shot. Name the shot that it was generated from.",
                clip=clip,
                found=len(frames),
                expected=shot.scene_frames,
                model_frames=shot.frames,
            )
        masked = {name: [_picture(path) for path in paths] for name, paths in pictures.items()}
        return cls(spec, spread_evenly(frames, shot.frames), masked)

    def report(self) -> MotionReport:
        """Measure the clip; subjects without a known appearance are left out."""
        seen = {name: _appearance(pictures) for name, pictures in self.pictures.items() if pictures}
        views = {name: Views.of(pictures) for name, pictures in self.pictures.items() if pictures}
        return shot_report(self.frames, self.spec.shot, {**self.appearances, **seen}, views)

    def write_contact_sheet(self, path: Path, report: MotionReport, guide: NDArray[np.uint8] | None = None) -> None:
        """Write a PNG: frames with requested (white) and found (red) boxes, camera path, guide, training pictures."""
        requested = [track.boxes for track in self.spec.shot.subjects]
        found = [[frame.found for frame in subject.frames] for subject in report.subjects]
        row = Row(
            title=f"{self.spec.prompt}   (seed {self.spec.seed})   white: requested, red: found",
            frames=self.frames,
            requested=requested,
            found=found,
            camera=self.spec.shot.camera,
        )
        shown = [picture.rgb for pictures in self.pictures.values() for picture in pictures]
        rows = [row] if guide is None else [Row("guide: the render that the clip starts from", guide, requested), row]
        write_contact_sheet(path, rows, shown)


def read_spec(shot: Path, model: str, placeholders: Placeholders = NO_PLACEHOLDERS) -> GenerateSpec:
    """The spec in a shot.json of the extension, or of a script of the paper's authors for a `model`.

    Raises InvalidInput for any other file, NotFound for an unknown model.
    """
    try:
        file = msgspec.json.decode(shot.read_text("utf-8-sig"), type=_ShotFile)  # as `read_script` reads
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(
            "{shot} is not a shot.json or a script ({problem}).", shot=shot, problem=in_words(error)
        ) from error
    if file.generate is not None:
        if placeholders.chosen:
            raise InvalidInput("{shot} is not a script and has no placeholders. Omit --token and --class.", shot=shot)
        return file.generate
    return read_script(shot, source_named(model).info, placeholders)


def pictures_for(spec: GenerateSpec, folder: Path) -> dict[str, list[Path]]:
    """The subjects' pictures: in sub-folders of their names, or for a single subject in `folder` itself.

    Masks are beside them (dog_mask.png beside dog.png). Raises InvalidInput if there are no pictures.
    """
    names = [track.name for track in spec.shot.subjects]
    own = {name: pictures_with_masks(folder / name) for name in names}
    if len(names) == 1 and not own[names[0]]:
        own = {names[0]: pictures_with_masks(folder)}
    found = {name: [picture for picture, _ in pictures] for name, pictures in own.items() if pictures}
    if not found:
        raise InvalidInput(
            "No pictures in {folder} for the shot's subjects ({subjects}): put a subject's "
            "pictures into a folder with its name there.",
            folder=folder,
            subjects=", ".join(names) or "it has none",
        )
    return found


def _picture(path: Path) -> MaskedPicture:
    return picture_with_mask(path, dict(pictures_with_masks(path.parent)).get(path), f"the picture {path}")


def _appearance(pictures: Sequence[MaskedPicture]) -> Appearance:
    return Appearance.from_pictures([picture.rgb for picture in pictures], [picture.mask for picture in pictures])


def report_table(report: MotionReport, tracks: Sequence[SubjectTrack]) -> Table:
    """The report as a table for people, with the meaning of each measure."""
    caption = "All measures are the product's own and need no weights. Flow: OpenCV's DIS."
    table = Table(title="motion report", caption=caption)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    known = {subject.name for subject in report.subjects}
    for subject in report.subjects:
        table.add_row(f"{subject.name}: IoU", _number(subject.iou), "overlap with the requested box, 1 is perfect")
        table.add_row(f"{subject.name}: center error", _percent(subject.center_error), "of the frame's width, median")
        table.add_row(f"{subject.name}: found", _percent(subject.found_share), "of the frames that ask for it")
        if subject.identity is not None:
            table.add_row(f"{subject.name}: identity", _number(subject.identity), "likeness to its pictures")
            table.add_row(f"{subject.name}: IoU by features", _number(subject.recognized_iou), "where it is like them")
    for track in tracks:
        if track.name not in known:
            table.add_row(
                f"{track.name}: not measured", "", "its appearance is not known: give its file or its pictures"
            )
    frame = f"a frame, of {report.width} x {report.height} px"
    table.add_row("camera flow error, median", _pixels(report.flow_error_px), frame)
    table.add_row("camera flow error, mean", _pixels(report.mean_flow_error_px), f"{frame}: over all of the scenery")
    return table


def _pixels(value: float | None) -> str:
    return "no texture" if value is None else f"{value:.2f} px"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"

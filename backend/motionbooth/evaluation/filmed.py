"""A filmed shot as it lies on disk: its motion report and its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import SubjectTrack
from numpy.typing import NDArray
from rich.table import Table

from ..subject.masks import picture_with_mask
from ..video import read_clip, spread_evenly
from .contact_sheet import Row, Sheet, write_contact_sheet
from .obedience import Appearance
from .report import AskedSubject, MotionReport, motion_report

MASK_SUFFIX = "_mask.png"  # dog_mask.png beside dog.png, as the extension writes them


class _Sent(msgspec.Struct):
    """What is needed of the extension's shot.json."""

    generate: GenerateSpec


@dataclass(frozen=True)
class FilmedShot:
    """What was asked, the model's frames of what came ((F, H, W, 3) uint8 RGB), and each subject's masked pictures."""

    asked: GenerateSpec
    frames: NDArray[np.uint8]
    pictures: Mapping[str, Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]]

    @classmethod
    def load(cls, clip: Path, shot: Path, pictures: Mapping[str, Sequence[Path]]) -> FilmedShot:
        """`shot`: a shot.json; `pictures`: the training pictures of each subject, by its name. Raises InvalidInput."""
        try:
            asked = msgspec.json.decode(shot.read_bytes(), type=_Sent).generate
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(f"{shot} cannot be read as what was asked of a shot ({error}).") from error
        frames, _ = read_clip(clip)
        seen = {name: [_picture(path) for path in paths] for name, paths in pictures.items()}
        return cls(asked, spread_evenly(frames, asked.shot.frames), seen)

    def report(self) -> MotionReport:
        """Measured from the clip's pixels; subjects without pictures have no known looks and are left out."""
        asked = [
            AskedSubject(track.name, _looks(self.pictures[track.name]), track.boxes)
            for track in self.asked.shot.subjects
            if self.pictures.get(track.name)
        ]
        return motion_report(self.frames, asked, self.asked.shot.camera)

    def write_contact_sheet(self, path: Path, report: MotionReport) -> None:
        """Frames with the asked boxes (white) and the found ones (red), the camera's path, the training pictures."""
        found = [[frame.found for frame in subject.frames] for subject in report.subjects]
        row = Row(
            title=f"{self.asked.prompt}   (seed {self.asked.seed})   white: asked, red: found",
            frames=self.frames,
            asked=[track.boxes for track in self.asked.shot.subjects],
            found=found,
            camera=self.asked.shot.camera,
        )
        shown = [picture for pictures in self.pictures.values() for picture, _ in pictures]
        write_contact_sheet(path, Sheet([row], shown))


def _picture(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    mask = path.with_name(path.stem + MASK_SUFFIX)
    return picture_with_mask(path, mask if mask.exists() else None, path.name)


def _looks(pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> Appearance:
    return Appearance.learn([rgb for rgb, _ in pictures], [mask.astype(np.uint8) for _, mask in pictures])


def report_table(report: MotionReport, tracks: Sequence[SubjectTrack]) -> Table:
    """The report for people: what was measured, and what it means."""
    table = Table(title="motion report")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    known = {subject.name for subject in report.subjects}
    for subject in report.subjects:
        table.add_row(f"{subject.name}: IoU", _number(subject.iou), "overlap with the asked box, 1 is perfect")
        table.add_row(f"{subject.name}: centre error", _percent(subject.center_error), "of the frame's width, median")
        table.add_row(f"{subject.name}: found", _percent(subject.found_share), "of the frames that ask for it")
    for track in tracks:
        if track.name not in known:
            table.add_row(f"{track.name}: not measured", "", "no training pictures, so its looks are not known")
    width, height = report.width, report.height
    table.add_row("camera flow error", f"{report.flow_error_px:.2f} px", f"a frame, of {width} x {height} px")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"

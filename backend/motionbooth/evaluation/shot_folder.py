"""A filmed shot as it lies on disk: its motion report and its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import SubjectTrack
from motionbooth_protocol.wording import in_words
from numpy.typing import NDArray
from rich.table import Table

from motionbooth.evaluation.contact_sheet import Row, Sheet, write_contact_sheet
from motionbooth.evaluation.report import MotionReport, shot_report
from motionbooth.generation.video import read_clip, spread_evenly
from motionbooth.models.sources import source_named
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.masks import picture_with_mask

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".heic", ".bmp"})
MASK_SUFFIX = "_mask.png"  # dog_mask.png beside dog.png, as the extension writes them


class _Sent(msgspec.Struct):
    """What is needed of the extension's shot.json; a script has no such field."""

    generate: GenerateSpec | None = None


@dataclass(frozen=True)
class FilmedShot:
    """What was asked, the model's frames of what came ((F, H, W, 3) uint8 RGB), and how each subject looks.

    That is known from its masked `pictures`, or without them from `looks`, which its trained file tells.
    """

    asked: GenerateSpec
    frames: NDArray[np.uint8]
    pictures: Mapping[str, Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]]
    looks: Mapping[str, Appearance] = field(default_factory=dict)

    def knowing(self, subject: Path) -> FilmedShot:
        """The same, with the looks that a trained subject's file tells. Raises InvalidInput where it is not in it."""
        from motionbooth.models.subject_card import read_card

        card = read_card(subject)
        phrase = f"{card.token} {card.class_word}"
        names = [track.name for track in self.asked.shot.subjects if track.phrase == phrase]
        if not names:
            raise InvalidInput(
                '{subject} is a "{phrase}", and the shot has none. Give the shot that it is in.',
                subject=subject,
                phrase=phrase,
            )
        if not card.looks:
            raise InvalidInput(
                "{subject} does not tell how it looks. Learn it again, or give its --pictures.", subject=subject
            )
        return replace(self, looks={**self.looks, **dict.fromkeys(names, Appearance.from_text(card.looks))})

    @classmethod
    def load(cls, clip: Path, asked: GenerateSpec, pictures: Mapping[str, Sequence[Path]]) -> FilmedShot:
        """`pictures`: the training pictures of each subject, by its name. Raises InvalidInput."""
        frames, _ = read_clip(clip)
        shortest = min(asked.shot.frames, asked.shot.scene_frames)
        if len(frames) < shortest:
            raise InvalidInput(
                "{clip} has {found} frames, and the shot {expected} ({model_frames} of the "
                "model): it is not a whole clip of this shot. Name the shot that it was generated from.",
                clip=clip,
                found=len(frames),
                expected=asked.shot.scene_frames,
                model_frames=asked.shot.frames,
            )
        seen = {name: [_picture(path) for path in paths] for name, paths in pictures.items()}
        return cls(asked, spread_evenly(frames, asked.shot.frames), seen)

    def report(self) -> MotionReport:
        """Measured from the clip's pixels; subjects without pictures have no known looks and are left out."""
        seen = {name: _looks(pictures) for name, pictures in self.pictures.items() if pictures}
        return shot_report(self.frames, self.asked.shot, {**self.looks, **seen})

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


def asked_in(
    shot: Path, model: str, token: str | None = None, class_word: str | None = None, subjects: Sequence[Path] = ()
) -> GenerateSpec:
    """What was asked: a shot.json as the extension writes it, or a script of the paper's authors for a `model`.

    `token`, `class_word`, or the only one of `subjects`, fill a script's placeholders.

    Raises InvalidInput for a file that is neither, NotFound for an unknown model.
    """
    try:
        sent = msgspec.json.decode(shot.read_bytes(), type=_Sent)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            "{shot} cannot be read as what was asked of a shot ({problem}).", shot=shot, problem=in_words(error)
        ) from error
    if sent.generate is not None:
        if token is not None or class_word is not None:
            raise InvalidInput("{shot} is no script and has no placeholders: leave --token and --class out.", shot=shot)
        return sent.generate
    from motionbooth.generation.script import Words, read_script  # loads torch, as above

    return read_script(shot, source_named(model).info, Words.of(token, class_word, subjects))


def pictures_for(asked: GenerateSpec, folder: Path) -> dict[str, list[Path]]:
    """The pictures in `folder`, of the shot's only subject, or in a folder for each subject, named after it.

    Masks lie beside them (dog_mask.png beside dog.png). Raises InvalidInput where there are none.
    """
    names = [track.name for track in asked.shot.subjects]
    own = {name: _pictures_in(folder / name) for name in names}
    if len(names) == 1 and not own[names[0]]:
        own = {names[0]: _pictures_in(folder)}
    found = {name: paths for name, paths in own.items() if paths}
    if not found:
        raise InvalidInput(
            "No pictures in {folder} for the shot's subjects ({subjects}): put a subject's "
            "pictures into a folder with its name there.",
            folder=folder,
            subjects=", ".join(names) or "it has none",
        )
    return found


def _pictures_in(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if path.suffix.lower() in PICTURES and not path.name.endswith(MASK_SUFFIX)]


def _picture(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    mask = path.with_name(path.stem + MASK_SUFFIX)
    return picture_with_mask(path, mask if mask.exists() else None, f"the picture {path}")


def _looks(pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> Appearance:
    return Appearance.from_pictures([rgb for rgb, _ in pictures], [mask for _, mask in pictures])


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
            table.add_row(f"{track.name}: not measured", "", "its looks are not known: give its file or its pictures")
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

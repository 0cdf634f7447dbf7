"""The formats that a shot is exported in, and the export itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Shot
from msgspec.structs import replace

from motionbooth.evaluation.contact_sheet import Row, write_contact_sheet
from motionbooth.evaluation.generated_shot import pictures_for
from motionbooth.export.camera_files import write_cameractrl, write_recammaster
from motionbooth.export.control_videos import write_ic_lora, write_vace
from motionbooth.export.engine_shot import to_engine_frame
from motionbooth.export.point_tracks import point_tracks
from motionbooth.export.request import ExportRequest
from motionbooth.export.script_file import write_script
from motionbooth.export.track_files import write_ati, write_comfyui, write_wan_move
from motionbooth.generation.video import Frames, read_clip, spread_evenly
from motionbooth.pictures.images import read_picture

SHOT_FILE = "shot.json"
SHEET_FRAMES = 6
MAX_SIDE = 4096
"""Pixels of a side of an engine's clip: its frames are held in memory."""


@dataclass(frozen=True)
class ExportFormat:
    """A kind of files, and the clip of the engine that reads them: its size (width, height), frames and fps.

    `write` writes the files and returns what the user does next.
    """

    reader: str
    write: Callable[[ExportRequest], list[str]]
    size: tuple[int, int] = (832, 480)
    frames: int = 81
    fps: float = 16
    size_step: int = 16


FORMATS = {
    "ati": ExportFormat("ATI (Wan 2.1)", write_ati),
    "wan-move": ExportFormat("Wan-Move", write_wan_move),
    "comfyui": ExportFormat("ComfyUI, with the ATI model", write_comfyui),
    "vace": ExportFormat("VACE (Wan 2.1)", write_vace),
    "ic-lora": ExportFormat("LTX-Video with an IC-LoRA", write_ic_lora, (768, 512), 97, 24, 32),
    "cameractrl": ExportFormat("CameraCtrl (AnimateDiff)", write_cameractrl, (384, 256), 16, 8, 8),
    "recammaster": ExportFormat("ReCamMaster (Wan 2.1)", write_recammaster),
    "motionbooth-script": ExportFormat("motionbooth generate, and other readers of the authors' scripts", write_script),
}
"""By the name that the user chooses."""


@dataclass(frozen=True)
class Media:
    """Files of the user that some formats need or can use."""

    guide: Path | None = None
    depth: Path | None = None
    first_frame: Path | None = None
    pictures: Path | None = None
    """A folder of the subjects' pictures, as for `motionbooth evaluate`."""


def export_shot(
    spec: GenerateSpec, name: str, folder: Path, media: Media, size: tuple[int, int] | None = None
) -> list[str]:
    """Write the shot for an engine into `folder`, with shot.json (for the import), preview.png and README.txt.

    Returns the lines that say what to do next. Raises NotFound for an unknown format, InvalidInput if the format needs
    what the shot or `media` does not have.
    """
    if name not in FORMATS:
        raise NotFound("There is no format {name}. Choose one of {known}.", name=name, known=", ".join(FORMATS))
    chosen = FORMATS[name]
    size = size or _turned(chosen.size, spec.shot)
    if any(side % chosen.size_step or not 0 < side <= MAX_SIDE for side in size):
        raise InvalidInput(
            "{reader} takes clips whose width and height are multiples of {step} up to {most}, not {width} x {height}.",
            reader=chosen.reader,
            step=chosen.size_step,
            most=MAX_SIDE,
            width=size[0],
            height=size[1],
        )
    pictures: Sequence[Path] = ()
    if media.pictures is not None:
        pictures = [path for paths in pictures_for(spec, media.pictures).values() for path in paths]
    request = ExportRequest(
        spec,
        folder,
        size,
        chosen.frames,
        chosen.fps,
        guide=None if media.guide is None else _fitted(_clip(media.guide, chosen.frames), spec.shot, size),
        depth=None if media.depth is None else _fitted(_clip(media.depth, chosen.frames), spec.shot, size),
        first_frame=None if media.first_frame is None else _fitted(_picture(media.first_frame), spec.shot, size),
        pictures=tuple(pictures),
    )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        steps = chosen.write(request)
    except InvalidInput:
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless it has files
        raise
    shot = request.shot_at(chosen.frames)
    (folder / SHOT_FILE).write_bytes(msgspec.json.encode({"generate": replace(spec, shot=shot)}))
    _write_preview(request, shot)
    steps.append("When the clip is there: motionbooth import CLIP --shot shot.json --out take.mp4")
    (folder / "README.txt").write_text("\n\n".join([f"For {chosen.reader}.", *steps]) + "\n", "utf-8")
    return steps


def _turned(size: tuple[int, int], shot: Shot) -> tuple[int, int]:
    """The engine's size, upright for an upright shot."""
    return size[::-1] if shot.height > shot.width else size


def _clip(path: Path, frames: int) -> Frames:
    return spread_evenly(read_clip(path)[0], frames)


def _picture(path: Path) -> Frames:
    return np.asarray(read_picture(path, f"the first frame {path}").convert("RGB"))[None]


def _fitted(frames: Frames, shot: Shot, size: tuple[int, int]) -> Frames:
    """Frames of a shot in the engine's frame; what they do not show repeats their edges.

    By their aspect ratio, they show its model frame (a guide) or its finished frame (any other render).
    """
    height, width = frames.shape[1:3]
    if shot.model_frame is not None:
        finished = shot.width / shot.height
        model = finished * (shot.model_frame.x2 - shot.model_frame.x1) / (shot.model_frame.y2 - shot.model_frame.y1)
        if abs(np.log(width / height / finished)) < abs(np.log(width / height / model)):
            shot = replace(shot, model_frame=None)
    place = to_engine_frame(shot, size)
    # Smaller frames are averaged first, which cv2.warpAffine cannot.
    width, height = (min(side, max(1, round(place[axis, axis]))) for axis, side in enumerate((width, height)))
    place = place @ np.diag([1 / width, 1 / height, 1])
    place[:, 2] += place[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV's pixels have their centers at whole numbers
    resized = (cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames)
    return np.stack(
        [cv2.warpAffine(each, place, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for each in resized]
    )


def _write_preview(request: ExportRequest, shot: Shot) -> None:
    """preview.png: some frames with the boxes and the points."""
    shown = np.linspace(0, request.frames - 1, SHEET_FRAMES).round().astype(int)
    width, height = request.size
    under = request.guide if request.guide is not None else request.depth
    frames = np.full((len(shown), height, width, 3), 128, np.uint8) if under is None else under[shown]
    tracks = point_tracks(shot, request.size)
    for frame, index in zip(frames, shown, strict=True):
        for x, y in tracks.points[index][tracks.visible[index]]:
            cv2.circle(frame, (round(float(x)), round(float(y))), max(2, width // 160), (255, 140, 0), -1)
    row = Row(
        f"{request.spec.shot.name}: {request.frames} frames in {width} x {height} px",
        frames,
        [[track.boxes[index] for index in shown] for track in shot.subjects],
        camera=request.shot_at(SHEET_FRAMES).camera,
    )
    write_contact_sheet(request.folder / "preview.png", [row])

"""Prior-preservation clips from a folder: videos or folders of frames, each with a caption."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import cv2
import msgspec
import numpy as np
import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.picture_files import is_hidden, picture_files
from motionbooth_protocol.wording import in_words
from numpy.typing import NDArray
from torch import Tensor

from motionbooth.finetuning.dataset import encode_clips
from motionbooth.finetuning.latent_cache import cached
from motionbooth.generation.video import Frames
from motionbooth.models.base import Base
from motionbooth.models.sources import files_digest
from motionbooth.pictures.folder import MASKS
from motionbooth.pictures.images import read_picture
from motionbooth.progress.reporting import OnProgress, ignore_progress

VIDEOS = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif"}
CAPTION_FILES = ("captions.json", "captions.csv")
_NUMBER = re.compile(r"(\d+)")


def folder_clips(base: Base, folder: Path, on_clip: OnProgress = ignore_progress) -> tuple[Tensor, list[str]]:
    """All clips of a folder as latents (K, C, F, h, w), sorted by name, and their captions.

    A clip is a video, or a sub-folder of numbered pictures, which are taken to have the base's frame rate. Its caption
    is in captions.json ({"name": "caption"}), captions.csv (name, caption) or name.txt; names may have their suffix.
    Each clip is trimmed to its first frames at the base's frame rate and number, and cropped at the center to the
    base's size. Latents are cached. Raises InvalidInput naming the clip or caption that cannot be used.
    """
    sources = clip_sources(folder)
    captions = [caption for _, caption in sources]
    latents = []
    for number, (source, _) in enumerate(sources, start=1):
        latents.append(_encoded(base, source))
        on_clip(number, len(sources))
    return torch.stack(latents), captions


def _encoded(base: Base, source: Path) -> Tensor:
    """A clip's latents (C, F, h, w), from the cache if possible."""
    settings = base.settings
    encoding = (settings.width, settings.height, settings.frames, settings.fps)

    def encode() -> Tensor:
        frames = read_frames(source, base)
        pieces = frames[:, None] if base.temporal == 1 else frames[None]
        mean, _ = encode_clips(base, pieces)
        return rearrange(mean, "n c f h w -> c (n f) h w")

    return cached(["upright clip", base.source.vae_sha256, encoding, source.is_file(), _content(source)], encode)


def folder_digest(folder: Path) -> str:
    """sha256 of all clips and captions of the folder. Raises InvalidInput as `clip_sources` does."""
    content = [(path.name, caption, _content(path)) for path, caption in clip_sources(folder)]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _content(source: Path) -> str:
    return files_digest([source] if source.is_file() else _pictures(source))


def clip_sources(folder: Path) -> list[tuple[Path, str]]:
    """The clips in a folder and their captions. Raises InvalidInput if there is no clip or a caption is missing."""
    if not folder.is_dir():
        raise InvalidInput("There is no folder of clips at {folder}.", folder=folder)
    found = sorted(path for path in folder.iterdir() if _is_clip(path))
    if not found:
        raise InvalidInput(
            "The folder {folder} has neither videos ({suffixes}) nor folders of pictures. Name another "
            "one, or none: then the base generates the clips.",
            folder=folder,
            suffixes=", ".join(sorted(VIDEOS)),
        )
    captions = _captions(folder)
    return [(path, _caption(path, captions)) for path in found]


def _is_clip(path: Path) -> bool:
    if is_hidden(path) or path.name == MASKS:  # of the subject's pictures, which may be in the same folder
        return False
    return path.suffix.lower() in VIDEOS if path.is_file() else any(_pictures(path))


def _pictures(folder: Path) -> list[Path]:
    """Sorted by number: 2.png comes before 10.png."""

    def key(path: Path) -> list[int | str]:
        return [int(part) if part.isdecimal() else part for part in _NUMBER.split(path.name)]

    return sorted(picture_files(folder), key=key)


def _captions(folder: Path) -> dict[str, str]:
    """The captions by name, from one of CAPTION_FILES."""
    sheet = next((folder / name for name in CAPTION_FILES if (folder / name).is_file()), None)
    if sheet is None:
        return {}
    try:
        if sheet.suffix == ".json":
            return msgspec.json.decode(sheet.read_bytes(), type=dict[str, str])
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            return {row[0].strip(): row[1].strip() for row in csv.reader(file) if row}
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InvalidInput(
            "The captions in {sheet} cannot be read ({problem}). JSON is "
            '{"clip.mp4": "a dog runs", ...}; CSV has two columns, name and caption.',
            sheet=sheet,
            problem=in_words(error),
        ) from error


def _caption(path: Path, captions: dict[str, str]) -> str:
    beside = path.with_name(path.stem + ".txt")
    caption = captions.get(path.name) or captions.get(path.stem) or ""
    if not caption and beside.is_file():
        caption = beside.read_text(encoding="utf-8", errors="replace").strip()
    if not caption:
        raise InvalidInput(
            "The clip {path} has no caption: describe it in a few words in captions.json, captions.csv or "
            "{caption_file} beside it.",
            path=path,
            caption_file=beside.name,
        )
    return caption


def read_frames(source: Path, base: Base) -> Frames:
    """The first frames of a clip, at the base's rate, number and size. Raises InvalidInput if the clip is too short."""
    settings = base.settings
    frames = _decoded(source, settings.fps) if source.is_file() else _read_all(source)
    taken = [_cropped(frame, settings.width, settings.height) for frame in islice(frames, settings.frames)]
    if len(taken) < settings.frames:
        raise InvalidInput(
            "The clip {source} has {found} frames at {fps:g} a second; {model} needs {wanted}. "
            "Replace it by a longer one, or remove it.",
            source=source,
            found=len(taken),
            fps=settings.fps,
            model=settings.title,
            wanted=settings.frames,
        )
    return np.stack(taken)


def _decoded(path: Path, fps: float) -> Iterator[NDArray[np.uint8]]:
    """A video's frames, upright, at 0, 1 / fps, 2 / fps ... seconds: each time the last that has started by then."""
    try:
        with av.open(str(path)) as container:
            due, shown = 0.0, None
            begin: float | None = None
            for frame in container.decode(video=0):
                begin = frame.time or 0.0 if begin is None else begin
                # Tolerance of half a millisecond, as containers round 1 / 3 s to 0.333 s.
                while shown is not None and (frame.time or 0.0) - begin > due + 5e-4:
                    yield shown
                    due += 1 / fps
                shown = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
            if shown is not None:
                yield shown
    except (av.FFmpegError, IndexError) as error:
        raise InvalidInput(
            "{path} cannot be read as a video ({problem}).", path=path, problem=in_words(error)
        ) from error


def _read_all(folder: Path) -> Iterator[NDArray[np.uint8]]:
    for path in _pictures(folder):
        yield np.asarray(read_picture(path, f"the frame {path}").convert("RGB"))


def _cropped(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scaled to cover the frame, cropped at the center."""
    scale = max(width / frame.shape[1], height / frame.shape[0])
    size = max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(frame, size, interpolation=interpolation)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled[top : top + height, left : left + width]

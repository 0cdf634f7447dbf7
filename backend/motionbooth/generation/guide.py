"""Reads the guide of a shot, and adds it to the plans of its sampling steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Shot
from motionbooth_protocol.text import Text
from motionbooth_protocol.wording import in_words
from torch import Tensor

from motionbooth.control.guide import GuideControl, guided_share, masked_cells, subject_cells
from motionbooth.control.plan import StepPlan
from motionbooth.generation.video import Frames, spread_evenly, to_rgb
from motionbooth.models.base import Base
from motionbooth.models.settings import BaseSettings

SENT_FORMATS = (("mp4", 4, b"ftyp"), ("matroska", 0, b"\x1aE\xdf\xa3"), ("apng", 0, b"\x89PNG"))
"""The formats of uploaded clips: FFmpeg's name, and the bytes by which a file is known, with their place."""
MAX_SENT_PIXELS = 2_000_000_000  # 6 GB

BlobPath = Callable[[str], Path]
SAME_SHAPE = 0.03  # relative difference of two aspect ratios: a pixel or two of a small frame


@dataclass(frozen=True)
class GuideClip:
    """A guide as the base sees it."""

    latents: Tensor  # (C, F', h, w), clean
    subjects: Tensor  # (F', h, w), 0..1: the share of each cell that is the subjects'


@torch.no_grad()
def read_guide(base: Base, spec: GenerateSpec, blob_path: BlobPath) -> GuideClip | None:
    """The spec's guide; None if there is none, or if it does not act. Raises InvalidInput if it does not fit."""
    guide, shot = spec.guide, spec.shot
    if guide is None or not guide.acts:
        return None
    frames = _fitting(blob_path(guide.clip), Text("the guide"), base.settings, shot)
    pixels = rearrange(torch.from_numpy(frames).to(base.device), "f h w c -> f c h w").float() / 127.5 - 1
    latents, _ = base.encode(pixels)
    if guide.masks is None:
        tracks, soft = [track.boxes for track in shot.subjects], base.settings.control.soft_edges
        return GuideClip(latents, subject_cells(tracks, base.latent_size, shot.frames, base.temporal, soft))
    masks = _fitting(blob_path(guide.masks), Text("the guide's masks"), base.settings, shot)
    white = torch.from_numpy(masks).float().mean(dim=-1) / 255
    return GuideClip(latents, masked_cells(white, base.latent_size, base.temporal))


def _fitting(path: Path, label: Text, model: BaseSettings, shot: Shot) -> Frames:
    """The model's frames of a clip, at the model's size. Raises InvalidInput if the clip does not fit the shot."""
    most = max(shot.scene_frames, shot.frames)
    frames, fps = _read(path, label, most)
    if len(frames) not in (shot.frames, shot.scene_frames):
        raise InvalidInput(
            "Cannot use {clip}: it has {found} frames, but {model} needs {expected}, or the shot's {scene_frames}. "
            "Render it again for this shot and model.",
            found=len(frames) if len(frames) <= most else Text.of("more than {most}", most=most),
            clip=label,
            model=model.title,
            expected=shot.frames,
            scene_frames=shot.scene_frames,
        )
    lasts, wanted = len(frames) / fps, shot.scene_frames / shot.fps
    if abs(lasts - wanted) > 1 / fps:
        raise InvalidInput(
            "Cannot use {clip}: it lasts {found:.2f} s, but the shot {expected:.2f} s. Save it with {fps:g} frames a "
            "second.",
            found=lasts,
            clip=label,
            expected=wanted,
            fps=round(len(frames) / wanted, 3),
        )
    height, width = frames.shape[1:3]
    if abs(width / height * model.height / model.width - 1) > SAME_SHAPE:
        raise InvalidInput(
            "Cannot use {clip}: {width} x {height} pixels have another aspect ratio than the frames of {model} "
            "({model_width} x {model_height}). Render it again with that of the model.",
            clip=label,
            width=width,
            height=height,
            model=model.title,
            model_width=model.width,
            model_height=model.height,
        )
    chosen = spread_evenly(frames, shot.frames)
    size = (model.width, model.height)
    method = cv2.INTER_AREA if width > model.width else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, size, interpolation=method) for frame in chosen])


def _read(path: Path, label: Text, most: int) -> tuple[Frames, float]:
    """The first frames of a clip, at most one more than `most`, and its frames per second. Raises InvalidInput.

    Uploaded files are not trusted: FFmpeg knows hundreds of formats, some of which make it open other files.
    """
    with path.open("rb") as file:
        start = file.read(12)
    try:
        format = next((name for name, at, mark in SENT_FORMATS if start[at : at + len(mark)] == mark), None)
        if format is None:
            raise ValueError("it is not an MP4, MOV, MKV, WebM or animated PNG")
        with av.open(str(path), format=format) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise ValueError("it has no pictures")
            frames: list[Frames] = []
            for number, frame in enumerate(islice(container.decode(stream), most + 1), 1):
                if frame.width * frame.height * number > MAX_SENT_PIXELS:
                    raise ValueError(f"{frame.width} x {frame.height} pixels are too many")
                if (frame.width, frame.height) != (stream.width, stream.height):
                    raise ValueError("its frames have different sizes")
                frames.append(to_rgb(frame))
            rate = stream.average_rate
        if not frames or not rate:
            raise ValueError("it has no frames")
    except (av.FFmpegError, ValueError) as error:
        raise InvalidInput(
            "Cannot read {clip} as a video clip ({problem}). Send it as MP4 or animated PNG.",
            clip=label,
            problem=in_words(error),
        ) from error
    return np.stack(frames), float(rate)


def with_guide(
    plans: Sequence[StepPlan], guide: GuideClip, noise_levels: Sequence[float], subject: float, background: float
) -> list[StepPlan]:
    """The plans with the guide: in each region while the noise level is above 1 - its strength.

    While the camera's shift is under way, the guide is where its content will end in the finished frames.
    """
    moves = np.array([plan.moves or [(0, 0)] * len(guide.subjects) for plan in plans])
    ahead = moves[::-1].cumsum(axis=0)[::-1] - moves  # of the moves of later steps
    guided = []
    for plan, level, still in zip(plans, noise_levels, ahead, strict=True):
        regions = [strength > 0 and level > 1 - strength for strength in (subject, background)]
        if not any(regions):
            guided.append(plan)
            continue
        control = GuideControl(guide.latents, guided_share(guide.subjects, *regions))
        if plan.warp is not None:
            control = control.gathered(plan.warp.ahead)
        guided.append(replace(plan, guide=control.ahead_of(still.tolist()) if still.any() else control))
    return guided

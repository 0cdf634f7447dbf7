"""Reads the guide of a shot, and adds it to the plans of its sampling steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
from motionbooth_protocol.motion import CameraPath, Shot
from motionbooth_protocol.text import Text
from motionbooth_protocol.wording import in_words
from torch import Tensor

from motionbooth.control.guide import GuideControl, Regions, in_boxes
from motionbooth.control.plan import StepPlan
from motionbooth.generation.first_frame import is_picture, moved_picture
from motionbooth.generation.video import Frames, spread, to_rgb
from motionbooth.models.base import Base
from motionbooth.models.settings import BaseSettings
from motionbooth.pictures.images import MAX_PIXELS, read_picture

SENT_FORMATS = (("mp4", 4, b"ftyp"), ("matroska", 0, b"\x1aE\xdf\xa3"), ("apng", 0, b"\x89PNG"))
"""The formats of uploaded clips: FFmpeg's name, and the bytes by which a file is known, with their place."""
SAME_SHAPE = 0.03  # relative difference of two aspect ratios: a pixel or two of a small frame

BlobPath = Callable[[str], Path]


@dataclass(frozen=True)
class GuideFrames:
    """A guide at the model's frames and size."""

    pixels: Frames  # (F, H, W, 3)
    regions: Regions  # of (F, H, W)


@dataclass(frozen=True)
class GuideClip:
    """A guide as the base sees it."""

    latents: Tensor  # (C, F', h, w), clean
    regions: Regions  # of (F', h, w)


def read_guide(spec: GenerateSpec, model: BaseSettings, blob_path: BlobPath) -> GuideFrames | None:
    """The spec's guide; None if there is none, or if it does not act. Raises InvalidInput if it does not fit."""
    guide, shot = spec.guide, spec.shot
    if guide is None or not guide.acts:
        return None
    path, label = blob_path(guide.clip), Text("the guide")
    boxes = in_boxes([track.boxes for track in shot.subjects], (shot.frames, model.height, model.width))
    if is_picture(path):
        picture = read_picture(path, label).convert("RGB")
        _check_shape(picture.size, label, model)
        camera = shot.camera if spec.camera_control else CameraPath.still(shot.frames)
        return GuideFrames(*moved_picture(_sized(np.asarray(picture), model), boxes, camera))
    pixels = _fitting(path, label, model, shot)
    if guide.masks is None:
        return GuideFrames(pixels, Regions.of(boxes))
    masks = _fitting(blob_path(guide.masks), Text("the guide's masks"), model, shot)
    return GuideFrames(pixels, Regions.of(torch.from_numpy(masks).float().mean(dim=-1) / 255))


@torch.no_grad()
def encoded(base: Base, guide: GuideFrames) -> GuideClip:
    """The guide in the base's latent space."""
    pixels = rearrange(torch.from_numpy(guide.pixels).to(base.device), "f h w c -> f c h w").float() / 127.5 - 1
    with base.vae_at_work():
        return GuideClip(base.long_encode(pixels), guide.regions.in_cells(base.latent_size, base.temporal))


def _fitting(path: Path, label: Text, model: BaseSettings, shot: Shot) -> Frames:
    """The model's frames of a clip, at the model's size. Raises InvalidInput if the clip does not fit the shot."""
    most = max(shot.scene_frames, shot.frames)
    shown = {count: spread(count, shot.frames).tolist() for count in (shot.frames, shot.scene_frames)}
    frames, found, fps = _read(path, label, most, model, {index for each in shown.values() for index in each})
    if found not in shown:
        raise InvalidInput(
            "Cannot use {clip}: it has {found} frames, but {model} needs {expected}, or the shot's {scene_frames}. "
            "Render it again for this shot and model.",
            found=found if found <= most else Text.of("more than {most}", most=most),
            clip=label,
            model=model.title,
            expected=shot.frames,
            scene_frames=shot.scene_frames,
        )
    lasts, wanted = found / fps, shot.scene_frames / shot.fps
    if abs(lasts - wanted) > 1 / fps:
        raise InvalidInput(
            "Cannot use {clip}: it lasts {found:.2f} s, but the shot lasts {expected:.2f} s. Save it with {fps:g} "
            "frames per second.",
            found=lasts,
            clip=label,
            expected=wanted,
            fps=round(found / wanted, 3),
        )
    return np.stack([frames[index] for index in shown[found]])


def _read(
    path: Path, label: Text, most: int, model: BaseSettings, wanted: Collection[int]
) -> tuple[dict[int, Frames], int, float]:
    """The `wanted` frames of a clip at the model's size, the number of all, at most one more than `most`, and its
    frames per second.

    Uploaded files are not trusted: FFmpeg knows hundreds of formats, some of which make it open other files. Raises
    InvalidInput.
    """
    with path.open("rb") as file:
        start = file.read(12)
    try:
        format = next((name for name, at, mark in SENT_FORMATS if start[at : at + len(mark)] == mark), None)
        if format is None:
            raise ValueError("it is not a picture, MP4, MOV, MKV, WebM or animated PNG")
        with av.open(str(path), format=format) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or not stream.width or not stream.height:
                raise ValueError("it has no pictures")
            _check_shape((stream.width, stream.height), label, model)
            frames, found = {}, 0
            for frame in islice(container.decode(stream), most + 1):
                if found in wanted:
                    frames[found] = _sized(to_rgb(frame), model)
                found += 1
            rate = stream.average_rate
        if not found or not rate:
            raise ValueError("it has no frames")
    except (av.FFmpegError, ValueError) as error:
        raise InvalidInput(
            "Cannot read {clip} as a video clip ({problem}). Send it as MP4 or animated PNG.",
            clip=label,
            problem=in_words(error),
        ) from error
    return frames, found, float(rate)


def _check_shape(size: tuple[int, int], label: Text, model: BaseSettings) -> None:
    """Raises InvalidInput if pictures of this width and height have another shape than the model's, or too many
    pixels."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise InvalidInput(
            "Cannot use {picture} ({width} x {height} pixels): at most 100 million pixels are possible.",
            picture=label,
            width=width,
            height=height,
        )
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


def _sized(frame: Frames, model: BaseSettings) -> Frames:
    method = cv2.INTER_AREA if frame.shape[1] > model.width else cv2.INTER_CUBIC
    return cv2.resize(frame, (model.width, model.height), interpolation=method)


def with_guide(
    plans: Sequence[StepPlan], guide: GuideClip, noise_levels: Sequence[float], subject: float, background: float
) -> list[StepPlan]:
    """The plans with the guide: in each region while the noise level is above 1 - its strength.

    While the camera's shift is under way, the guide is where its content will end in the finished frames.
    """
    moves = np.array([plan.moves or [(0, 0)] * guide.latents.shape[1] for plan in plans])
    ahead = moves[::-1].cumsum(axis=0)[::-1] - moves  # of the moves of later steps
    guided = []
    for plan, level, still in zip(plans, noise_levels, ahead, strict=True):
        share = guide.regions.guided(level, subject, background)
        if not share.any():
            guided.append(plan)
            continue
        control = GuideControl(guide.latents, share)
        if plan.warp is not None:
            control = control.gathered(plan.warp.ahead)
        guided.append(replace(plan, guide=control.ahead_of(still.tolist()) if still.any() else control))
    return guided

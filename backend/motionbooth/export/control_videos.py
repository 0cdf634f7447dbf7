"""Control videos: VACE and LTX's IC-LoRA. docs/export.md has their sources."""

from __future__ import annotations

import shlex

import cv2
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.picture_files import pictures_with_masks
from PIL import Image

from motionbooth.export.engine_shot import nearness
from motionbooth.export.request import ExportRequest
from motionbooth.generation.video import Frames, write_clip
from motionbooth.pictures.masks import picture_with_mask

LINE_PX = 3
"""Of VACE's layout videos: black outlines on white."""

LARGEST_480P = 832 * 480  # pixels

CANNY = (100, 200)


def write_vace(request: ExportRequest) -> list[str]:
    """src_video_boxes.mp4, src_mask.mp4 (white: all is generated), src_video_depth.mp4, src_ref_images/."""
    folder = request.folder
    write_clip(folder / "src_video_boxes.mp4", _box_video(request), request.fps)
    width, height = request.size
    white = np.broadcast_to(np.uint8(255), (request.frames, height, width, 3))
    write_clip(folder / "src_mask.mp4", white, request.fps)
    depth = _depth(request)
    if depth is not None:
        write_clip(folder / "src_video_depth.mp4", depth, request.fps)
    references = _write_references(request)
    shown = f"--src_ref_images {','.join(references)} " if references else ""
    size = "480p" if width * height <= LARGEST_480P else "720p"
    steps = [
        "In a checkout of VACE, with the files of this folder copied into it: "
        f"python vace/vace_wan_inference.py --ckpt_dir CHECKPOINTS --size {size} --frame_num {request.frames} "
        f"--src_video src_video_boxes.mp4 --src_mask src_mask.mp4 {shown}"
        f"--prompt {shlex.quote(request.prompt)}"
    ]
    if depth is not None:
        steps.append("To follow the scene's depth instead of the boxes: --src_video src_video_depth.mp4")
    return steps


def write_ic_lora(request: ExportRequest) -> list[str]:
    """control.mp4: the depth clip, or the edges of the guide (Canny)."""
    depth = _depth(request)
    if request.guide is not None and request.depth is None:
        control, kind = _edges(request.guide), "canny"
    elif depth is not None:
        control, kind = depth, "depth"
    else:
        raise InvalidInput(
            "An IC-LoRA follows a control video, made from a render of the shot. Give one with --guide or --depth; in "
            "Blender, generate once with Scene Guide first.",
            code="no_control",
        )
    write_clip(request.folder / "control.mp4", control, request.fps)
    return [
        f"Load control.mp4 as the conditioning video of LTX-Video's {kind} IC-LoRA (in LTX-Video-Trainer or "
        f"ComfyUI-LTXVideo), with {request.frames} frames in {request.size[0]} x {request.size[1]} px, and the prompt: "
        f"{request.prompt}"
    ]


def _box_video(request: ExportRequest) -> Frames:
    width, height = request.size
    frames = np.full((request.frames, height, width, 3), 255, np.uint8)
    for track in request.shot_at(request.frames).subjects:
        for frame, box in zip(frames, track.boxes, strict=True):
            if box is not None:
                x1, y1, x2, y2 = (round(edge) for edge in np.array(box.as_tuple()) * (width, height, width, height))
                cv2.rectangle(frame, (x1, y1), (x2, y2), (0, 0, 0), LINE_PX)
    return frames


def _depth(request: ExportRequest) -> Frames | None:
    """The depth clip that was given, or how near the shot's scenery is, which is coarse and has no subjects."""
    camera = request.shot_at(request.frames).camera
    if request.depth is not None or camera.parallax is None:
        return request.depth
    near = nearness(camera.parallax)
    gray = (255 * near / max(near.max(), 1e-6)).astype(np.uint8)
    frames = [cv2.resize(frame, request.size, interpolation=cv2.INTER_LINEAR) for frame in gray]
    return np.repeat(np.stack(frames)[..., None], 3, -1)


def _edges(frames: Frames) -> Frames:
    return np.stack(
        [np.repeat(cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), *CANNY)[..., None], 3, -1) for frame in frames]
    )


def _write_references(request: ExportRequest) -> list[str]:
    """The subjects' pictures on white, as VACE's examples have them; returns their paths in the folder."""
    names = []
    for number, path in enumerate(request.pictures, 1):
        picture = picture_with_mask(path, dict(pictures_with_masks(path.parent)).get(path), f"the picture {path}")
        names.append(f"src_ref_images/{number}.png")
        target = request.folder / names[-1]
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(np.where(picture.mask[..., None] > 0, picture.rgb, 255).astype(np.uint8)).save(target)
    return names

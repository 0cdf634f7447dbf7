"""Point tracks: ATI, Wan-Move and ComfyUI's node for ATI. docs/export.md has their sources."""

from __future__ import annotations

import io
import json
import shlex
from typing import Any

import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from PIL import Image

from motionbooth.export.point_tracks import PointTracks, point_tracks
from motionbooth.export.request import ExportRequest

ATI_MOMENTS = 121
"""ATI reads tracks at 24 moments a second over five seconds, whatever the length of its clip."""

ATI_QUANTUM = 8
"""Its files hold pixels times this."""

FIRST_FRAME = "first_frame.png"


def write_ati(request: ExportRequest) -> list[str]:
    """tracks.pth (a saved bytes object: an npz whose "array" is (N, 121, 1, 3): x, y, visible) and case.yaml."""
    tracks = _tracks(request, ATI_MOMENTS)
    array = np.concatenate([tracks.points, tracks.visible[..., None]], axis=-1).swapaxes(0, 1)[:, :, None]
    packed = io.BytesIO()
    np.savez_compressed(packed, array=(ATI_QUANTUM * array).astype(np.float32))
    torch.save(packed.getvalue(), request.folder / "tracks.pth")
    case = {
        name: str(request.folder.absolute() / file) for name, file in (("image", FIRST_FRAME), ("track", "tracks.pth"))
    }
    (request.folder / "case.yaml").write_text(json.dumps([{**case, "text": request.prompt}], indent=1), "utf-8")
    return ["In a checkout of ATI: bash run_example.sh -p case.yaml -c CHECKPOINTS -o OUTPUT", *_picture(request)]


def write_wan_move(request: ExportRequest) -> list[str]:
    """tracks.npy (T, N, 2) float32 in pixels, and visibility.npy (T, N) bool."""
    tracks = _tracks(request, request.frames)
    np.save(request.folder / "tracks.npy", tracks.points)
    np.save(request.folder / "visibility.npy", tracks.visible)
    width, height = request.size
    command = (
        "In a checkout of Wan-Move, with the files of this folder copied into it: "
        f"python generate.py --task wan-move-i2v --ckpt_dir CHECKPOINTS --size {height}*{width} "
        f"--image {FIRST_FRAME} --track tracks.npy --track_visibility visibility.npy "
        f"--prompt {shlex.quote(request.prompt)}"
    )
    return [command, *_picture(request)]


def write_comfyui(request: ExportRequest) -> list[str]:
    """workflow.json in ComfyUI's API format: Wan 2.1 ATI with the node WanTrackToVideo."""
    coords = json.dumps(_visible_starts(_tracks(request, ATI_MOMENTS)))
    (request.folder / "workflow.json").write_text(json.dumps(_workflow(request, coords), indent=1), "utf-8")
    return [
        "In ComfyUI: put first_frame.png into its input folder, and drag workflow.json into the window.",
        *_picture(request),
    ]


def _tracks(request: ExportRequest, moments: int) -> PointTracks:
    tracks = point_tracks(request.shot_at(moments), request.size).from_the_start
    if not tracks.visible.size:
        raise InvalidInput("No point of the shot's first frame can be followed: a subject's box covers all of it.")
    return tracks


def _picture(request: ExportRequest) -> list[str]:
    """Write the first frame, or say that it is missing; also which subjects it cannot show."""
    if request.first_frame is not None:
        Image.fromarray(request.first_frame[0]).save(request.folder / FIRST_FRAME)
        steps = []
    else:
        size = "{} x {}".format(*request.size)
        steps = [f"Add {FIRST_FRAME}, the clip's first frame in {size} px: the engine starts from it."]
    late = [track.name for track in request.spec.shot.subjects if track.boxes[0] is None]
    return steps + [f"{name} is not in the first frame, so the engine gets no points of it." for name in late]


def _visible_starts(tracks: PointTracks) -> list[list[dict[str, float]]]:
    """Each track up to where it leaves the frame or is covered: the node takes what is missing as invisible."""
    found = []
    for points, visible in zip(tracks.points.swapaxes(0, 1), tracks.visible.T, strict=True):
        length = len(visible) if visible.all() else int(np.argmin(visible))
        found.append([{"x": round(float(x), 2), "y": round(float(y), 2)} for x, y in points[:length]])
    return found


def _workflow(request: ExportRequest, tracks: str) -> dict[str, Any]:
    width, height = request.size
    seed = request.spec.seed
    negative = request.spec.negative_prompt
    return {
        "model": _node("UNETLoader", unet_name="Wan2_1-I2V-ATI-14B_fp8_e4m3fn.safetensors", weight_dtype="default"),
        "shift": _node("ModelSamplingSD3", model=["model", 0], shift=8.0),
        "text": _node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan"),
        "vae": _node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "vision": _node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors"),
        "picture": _node("LoadImage", image=FIRST_FRAME),
        "seen": _node("CLIPVisionEncode", clip_vision=["vision", 0], image=["picture", 0], crop="none"),
        "positive": _node("CLIPTextEncode", clip=["text", 0], text=request.prompt),
        "negative": _node("CLIPTextEncode", clip=["text", 0], text=negative),
        "motion": _node(
            "WanTrackToVideo",
            positive=["positive", 0],
            negative=["negative", 0],
            vae=["vae", 0],
            tracks=tracks,
            width=width,
            height=height,
            length=request.frames,
            batch_size=1,
            temperature=220.0,
            topk=2,
            start_image=["picture", 0],
            clip_vision_output=["seen", 0],
        ),
        "sampler": _node(
            "KSampler",
            model=["shift", 0],
            positive=["motion", 0],
            negative=["motion", 1],
            latent_image=["motion", 2],
            seed=seed,
            steps=20,
            cfg=3.0,
            sampler_name="uni_pc",
            scheduler="simple",
            denoise=1.0,
        ),
        "frames": _node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "clip": _node("CreateVideo", images=["frames", 0], fps=request.fps),
        "save": _node("SaveVideo", video=["clip", 0], filename_prefix="motionbooth", format="auto", codec="auto"),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}

"""Camera poses: CameraCtrl and ReCamMaster. docs/export.md has their sources."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import CameraPose, Offset
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motionbooth.export.request import ExportRequest

CENTIMETERS = 100.0
PAN_VIEW = 50.0
"""Degrees: the field of view of the camera that turns for a pan without poses, about that of a phone."""

TO_UNREAL = np.diag([1.0, -1.0, 1.0])
"""Unreal's world is left-handed, with z up like Blender's."""


def write_cameractrl(request: ExportRequest) -> list[str]:
    """trajectory.txt, as RealEstate10K: a line of text, then for each frame its time in microseconds, fx, fy, cx, cy in
    shares of the frame, two zeros, and the rows of the (3, 4) matrix from the world to the camera (meters).
    prompts.json: its prompt, negative prompt and seed."""
    lines = [f"exported from the shot {request.spec.shot.name}"]
    for frame, pose in enumerate(_poses(request)):
        to_camera = np.linalg.inv(_square(pose))[:3]
        numbers = (*pose.focal, *pose.center, 0.0, 0.0, *to_camera.ravel())
        lines.append(" ".join([str(round(1e6 * frame / request.fps)), *(f"{value:.9f}" for value in numbers)]))
    (request.folder / "trajectory.txt").write_text("\n".join(lines) + "\n", "utf-8")
    asked = {"prompts": [request.prompt], "negative_prompts": [request.spec.negative_prompt]}
    prompts = json.dumps({**asked, "seeds": [request.spec.seed]}, indent=1)
    (request.folder / "prompts.json").write_text(prompts, "utf-8")
    options = shlex.join(cameractrl_options(request.folder.absolute(), request.size))
    return [
        f"In a checkout of CameraCtrl, with the options that name its models: python inference.py ... {options}",
        "Positions are in meters. CameraCtrl was trained on scenes in units of their own: scale the last column of the "
        "matrices if the move is too strong or too weak.",
    ]


def cameractrl_options(folder: Path, size: tuple[int, int]) -> list[str]:
    """The options of CameraCtrl's inference.py for an export in `folder`, in `size` (width, height); the clip will be
    in the sub-folder clips.

    The trajectory is of a video of the same aspect ratio as the clip; CameraCtrl would take it to be of one in 16:9.
    """
    width, height = map(str, size)
    return [
        *("--image_width", width, "--image_height", height),
        *("--original_pose_width", width, "--original_pose_height", height),
        *("--trajectory_file", str(folder / "trajectory.txt")),
        *("--visualization_captions", str(folder / "prompts.json"), "--use_specific_seeds", "--use_negative_prompt"),
        *("--n_procs", "1", "--local_rank", "0", "--out_root", str(folder / "clips")),
    ]


def write_recammaster(request: ExportRequest) -> list[str]:
    """camera_extrinsics.json, as MultiCamVideo's: for each frame, "cam01" with the rows ahead, right, up and position
    (Unreal's axes, centimeters)."""
    frames = {f"frame{index}": {"cam01": _unreal(pose)} for index, pose in enumerate(_poses(request))}
    (request.folder / "camera_extrinsics.json").write_text(json.dumps(frames, indent=1), "utf-8")
    return [
        "In a checkout of ReCamMaster: replace example_test_data/cameras/camera_extrinsics.json, and run "
        "python inference_recammaster.py --cam_type 1 --dataset_path DATA, where DATA has the video to follow",
        "Positions are in centimeters. ReCamMaster takes no focal length: it keeps that of the video.",
    ]


def _poses(request: ExportRequest) -> list[CameraPose]:
    """The scene's camera; for a pan without one, such as a script's, a camera that turns."""
    camera = request.shot_at(request.frames).camera
    if not camera.poses and camera.homographies:
        raise InvalidInput(
            "The shot's camera does more than pan, and its poses are not known. Capture the shot in Blender, from a "
            "single perspective camera.",
            code="no_poses",
        )
    return camera.poses or _turning(camera.offsets, request.size)


def _turning(offsets: Sequence[Offset], size: tuple[int, int]) -> list[CameraPose]:
    """A camera with a field of view of PAN_VIEW across that looks along +y, and turns to what the offsets reach."""
    focal = 0.5 / math.tan(math.radians(PAN_VIEW) / 2)
    fx, fy = focal, focal * size[0] / size[1]
    ahead = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # the columns: right, down, ahead
    poses = []
    for offset in offsets:
        turn = Rotation.from_euler("YX", [math.atan(offset.dx / fx), -math.atan(offset.dy / fy)]).as_matrix()
        rows = np.column_stack([ahead @ turn, np.zeros(3)]).tolist()
        poses.append(msgspec.convert([rows, (fx, fy)], CameraPose))
    return poses


def _square(pose: CameraPose) -> NDArray[np.float64]:
    return np.vstack([np.array(pose.to_world), [0, 0, 0, 1]])


def _unreal(pose: CameraPose) -> str:
    right, down, ahead, position = (TO_UNREAL @ np.array(pose.to_world)).T
    rows = [(*ahead, 0.0), (*right, 0.0), (*-down, 0.0), (*position * CENTIMETERS, 1.0)]
    return " ".join("[" + " ".join(f"{value:.6f}" for value in row) + "]" for row in rows) + " "

"""A stand-in for CameraCtrl's inference.py: its options and files, as its README and its help document them.

It shows a texture on a far sphere as the trajectory's camera sees it, so the clip says whether the files were right.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from motionbooth.generation.video import write_clip

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("out_root", "ori_model_path", "unet_subfolder", "motion_module_ckpt", "pose_adaptor_ckpt", "model_config"):
    parser.add_argument(f"--{name}", required=True)
for name in ("image_lora_ckpt", "personalized_base_model"):
    parser.add_argument(f"--{name}")
for name, default in (("image_height", 256), ("image_width", 384), ("video_length", 16), ("num_inference_steps", 25)):
    parser.add_argument(f"--{name}", type=int, default=default)
for name, default in (("original_pose_width", 1280), ("original_pose_height", 720), ("image_lora_rank", 2)):
    parser.add_argument(f"--{name}", type=int, default=default)
for name, default in (("n_procs", 8), ("world_size", 1), ("local_rank", -1)):
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--guidance_scale", type=float, default=14.0)
parser.add_argument("--visualization_captions", required=True)
parser.add_argument("--trajectory_file", required=True)
parser.add_argument("--use_negative_prompt", action="store_true")
parser.add_argument("--use_specific_seeds", action="store_true")
args = parser.parse_args()

assert Path(args.model_config).is_file(), "it is read from the checkout"
assert args.local_rank == 0, "other processes print nothing, and take other prompts"
entries = [
    [float(value) for value in line.strip().split(" ")]
    for line in Path(args.trajectory_file).read_text().splitlines()[1:]
]
assert {len(entry) for entry in entries} == {19}
assert len(entries) == args.video_length
asked = json.loads(Path(args.visualization_captions).read_text())
(prompt,), (seed,) = asked["prompts"], asked["seeds"]
assert args.use_specific_seeds
assert not args.use_negative_prompt or len(asked["negative_prompts"]) == 1

width, height = args.image_width, args.image_height
wider = (args.original_pose_width / args.original_pose_height) / (width / height)  # what the clip shows of that video
texture = np.random.default_rng(seed).integers(0, 256, (3 * height, 3 * width, 3)).astype(np.float32)
texture = cv2.GaussianBlur(texture, (0, 0), 4)
texture = (127 + (texture - texture.mean()) * 50 / texture.std()).clip(0, 255).astype(np.uint8)
frames = []
for entry in entries:
    fx, fy, cx, cy = np.array(entry[1:5]) * (width * max(wider, 1), height / min(wider, 1), width, height)
    intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    turns = [np.reshape(each[7:], (3, 4))[:, :3] for each in (entries[0], entry)]
    place = np.array([[1, 0, width], [0, 1, height], [0, 0, 1.0]])
    seen = place @ intrinsics @ turns[0] @ turns[1].T @ np.linalg.inv(intrinsics)  # from a frame to the texture
    frames.append(cv2.warpPerspective(texture, seen, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
clip = Path(args.out_root) / f"{'_'.join(prompt.split(' '))}.mp4"
clip.parent.mkdir(parents=True, exist_ok=True)
write_clip(clip, np.stack(frames), 8)

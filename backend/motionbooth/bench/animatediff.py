"""AnimateDiff as a rival of `motionbooth bench paper`: a motion LoRA for each direction moves its camera.

    python -m motionbooth.bench.animatediff WEIGHTS AMOUNT SHOT CLIP

WEIGHTS has, as downloaded, `base` (Stable Diffusion 1.5, a diffusers folder), `adapter` (the motion adapter), and the
motion LoRAs `pan-left`, `pan-right`, `tilt-up` and `tilt-down`. A motion LoRA has a direction but no distance: AMOUNT
is its weight, the same for every shot. To sweep it, give the bench several rivals.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput, MotionBoothError
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray

from motionbooth.evaluation.generated_shot import read_spec
from motionbooth.generation.video import write_clip


def motion_loras(camera: CameraPath) -> list[str]:
    """The LoRAs of the directions in which the camera travels over the clip."""
    last = camera.offsets[-1]
    across = ["pan-right" if last.dx > 0 else "pan-left"] * (last.dx != 0)
    return across + ["tilt-down" if last.dy > 0 else "tilt-up"] * (last.dy != 0)


def generate(weights: Path, amount: float, spec: GenerateSpec) -> NDArray[np.uint8]:
    """Frames (F, H, W, 3) uint8 RGB of the shot's prompt; F is at most what the motion adapter was trained for.

    Raises InvalidInput if the weights cannot be read.
    """
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

    placed = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
    loras = motion_loras(spec.shot.camera)
    try:
        adapter = MotionAdapter.from_pretrained(weights / "adapter", local_files_only=True)
        pipeline = AnimateDiffPipeline.from_pretrained(weights / "base", motion_adapter=adapter, local_files_only=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a camera may move both ways
            for name in loras:
                pipeline.load_lora_weights(weights / name, adapter_name=name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            "AnimateDiff's weights in {folder} cannot be read ({reason}). It has base, adapter, pan-left, "
            "pan-right, tilt-up and tilt-down.",
            folder=weights,
            reason=str(error).partition("\n")[0],
        ) from error
    if loras:
        pipeline.set_adapters(loras, [amount] * len(loras))
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config,
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="linspace",
        steps_offset=1,
    )
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline.to(*placed)(
        spec.prompt,
        num_frames=min(spec.shot.frames, adapter.config.motion_max_seq_length),
        width=spec.shot.width,
        height=spec.shot.height,
        num_inference_steps=spec.num_inference_steps or 25,
        guidance_scale=spec.guidance_scale or 7.5,
        negative_prompt=spec.negative_prompt or None,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type="np",
    )
    return (np.asarray(made.frames[0]) * 255).round().astype(np.uint8)


def main(weights: str, amount: str, shot: str, clip: str) -> None:
    """Generate the shot into the clip. Exits with a message if the weights cannot be read."""
    spec = read_spec(Path(shot), "")
    try:
        write_clip(Path(clip), generate(Path(weights), float(amount), spec), spec.shot.fps)
    except MotionBoothError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])

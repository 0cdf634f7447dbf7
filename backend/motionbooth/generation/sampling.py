"""Filming: the denoising loop of MotionBooth (paper, sections 3.3 and 3.4), and what goes in and comes out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import CameraPath
from torch import Tensor

from motionbooth.control.boxes import BoxControl
from motionbooth.control.camera import Pick, random_pick, shift_by_phase, shift_latents
from motionbooth.control.plan import StepPlan, plan_steps
from motionbooth.control.prompt import prompt_tokens
from motionbooth.control.scenery import Scenery, merge_scenery
from motionbooth.models.registry import Base

OnStep = Callable[[int, int], None]  # (steps done, steps in all); whatever it raises ends the run
OnEstimate = Callable[[Tensor], None]  # after each step: what the model now takes for the clean latents


@torch.no_grad()
def denoise(
    base: Base,
    latents: Tensor,
    conditional: Tensor,
    unconditional: Tensor,
    guidance: float,
    plans: Sequence[StepPlan],
    pick: Pick,
    on_step: OnStep,
    on_estimate: OnEstimate | None = None,
    chance: Sequence[torch.Generator] = (),
) -> Tensor:
    """Noise to clean latents, both (B, C, F, h, w), in one step for each plan.

    conditional, unconditional: text embeddings (B, tokens, D). `guidance` <= 1 leaves the unconditional pass out. The
    boxes act on the conditional half only. `chance`: for a sampler that draws noise on the way (DDPM), one generator or
    one for each sample; without it, torch's own.
    """
    guided = guidance > 1
    text = torch.cat([unconditional, conditional]) if guided else conditional
    base.scheduler.set_timesteps(len(plans), device=base.device)
    latents = latents * base.scheduler.init_noise_sigma
    try:
        for step, (t, plan) in enumerate(zip(base.scheduler.timesteps, plans, strict=True)):
            if plan.moves and plan.free is not None:
                latents = shift_latents(latents, plan.moves, plan.free, pick)
            if plan.rests:
                latents = shift_by_phase(latents, plan.rests)
            _set_boxes(base, plan.boxes, latents, guided)
            batch = torch.cat([latents, latents]) if guided else latents
            noise = base.unet(base.scheduler.scale_model_input(batch, t), t, text).sample
            if guided:
                without, with_text = noise.chunk(2)
                noise = without + guidance * (with_text - without)
            if plan.scenery is not None:
                noise = with_merged_scenery(base, noise, t, latents, plan.scenery)
            stepped = base.scheduler.step(noise, t, latents, generator=list(chance) or None)
            latents = stepped.prev_sample
            on_step(step + 1, len(plans))
            if on_estimate is not None:
                on_estimate(stepped.pred_original_sample)
    finally:
        base.control.clear()
    return latents


def with_merged_scenery(base: Base, output: Tensor, t: Tensor, latents: Tensor, scenery: Scenery) -> Tensor:
    """The UNet's output as if the clean clip that it implies had the same scenery in all frames."""
    alpha = base.scheduler.alphas_cumprod.to(latents.device)[t].to(latents)
    signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
    is_velocity = base.scheduler.config.prediction_type == "v_prediction"
    clean = signal * latents - sigma * output if is_velocity else (latents - sigma * output) / signal
    scale = base.vae.config.scaling_factor
    clips = [base.vae.decode(rearrange(clip, "c f h w -> f c h w") / scale).sample for clip in clean]
    merged = [base.vae.encode(merge_scenery(clip, scenery)).latent_dist.mode() * scale for clip in clips]
    cells = scenery.cells.to(latents.device)  # (F, h, w): the subjects do not pass through the autoencoder
    clean = torch.where(cells, rearrange(torch.stack(merged), "b f c h w -> b c f h w"), clean)
    return (signal * latents - clean) / sigma if is_velocity else (latents - signal * clean) / sigma


def _set_boxes(base: Base, boxes: BoxControl | None, latents: Tensor, guided: bool) -> None:
    batch, _, frames, height, width = latents.shape
    conditional = [boxes] * batch
    base.control.set_boxes([None] * batch + conditional if guided else conditional, (height, width), frames)


def shared_noise(shape: Sequence[int], rho: float, generator: torch.Generator) -> Tensor:
    """(B, C, F, h, w), variance 1, the share rho of it common to all frames: sqrt(1 - rho) n_f + sqrt(rho) n_0.

    Drawn on the CPU in float32, so that a seed means the same noise on every device.
    """
    noise = torch.randn(*shape, generator=generator)
    if rho == 0:
        return noise
    batch, channels, _, height, width = shape
    common = torch.randn(batch, channels, 1, height, width, generator=generator)
    return math.sqrt(1 - rho) * noise + math.sqrt(rho) * common


def initial_noise(base: Base, generator: torch.Generator, batch: int = 1) -> Tensor:
    """What a clip begins as: (B, C, F, h, w) at the base's own size, with its own share of common noise."""
    shape = (batch, base.unet.config.in_channels, base.settings.frames, *base.latent_size)
    return shared_noise(shape, base.settings.shared_noise, generator).to(base.device, base.dtype)


def film(
    base: Base,
    spec: GenerateSpec,
    on_step: OnStep,
    on_estimate: OnEstimate | None = None,
    on_frame: OnStep | None = None,
) -> Tensor:
    """The clip of a shot: uint8 (F, H, W, 3), RGB, at the model's own size and number of frames.

    `on_frame`: told of each decoded frame. Raises InvalidInput for a shot or prompt that does not fit.
    """
    return film_takes(base, spec, [spec.seed], on_step, on_estimate, on_frame)[0]


def film_takes(
    base: Base,
    spec: GenerateSpec,
    seeds: Sequence[int],
    on_step: OnStep,
    on_estimate: OnEstimate | None = None,
    on_frame: OnStep | None = None,
) -> Tensor:
    """A take of the shot for each of the seeds, in one batch: uint8 (N, F, H, W, 3).

    Every take has the chance of its own seed, and is what `film` gives for it alone but for the last bits: kernels
    round differently for batches of another size. Raises InvalidInput as `film` does.
    """
    settings, shot = base.settings, spec.shot
    if shot.frames != settings.frames:
        raise InvalidInput(
            "The shot has boxes for {found} frames, and {model} films {expected}. "
            "Read the shot from the scene again for this model.",
            found=shot.frames,
            model=settings.title,
            expected=settings.frames,
        )
    chance = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = torch.cat([initial_noise(base, generator) for generator in chance])
    conditional, unconditional = base.embed([spec.prompt] * len(seeds)), base.embed([spec.negative_prompt] * len(seeds))
    guidance = settings.guidance if spec.guidance is None else spec.guidance
    plans, pick = plan_shot(base, spec), random_pick(*chance)
    latents = denoise(base, latents, conditional, unconditional, guidance, plans, pick, on_step, on_estimate, chance)
    return decode(base, latents, on_frame)


def plan_shot(base: Base, spec: GenerateSpec) -> list[StepPlan]:
    """The controls of every step. The prompt is checked for every subject's phrase even where boxes are off."""
    shot, control = spec.shot, base.settings.control
    if shot.subjects and not spec.box_control:  # where the subjects are is not known, and they are no scenery
        control = replace(control, merge_until=0)
    tokens = prompt_tokens(
        base.tokenizer, spec.prompt, [track.phrase for track in shot.subjects], spec.background_phrase
    )
    return plan_steps(
        control,
        spec.steps or base.settings.steps,
        base.latent_size,
        camera=shot.camera if spec.camera_control else CameraPath.still(shot.frames),
        tracks=[track.boxes for track in shot.subjects] if spec.box_control else [],
        tokens=tokens,
    )


@torch.no_grad()
def decode(base: Base, latents: Tensor, on_frame: OnStep | None = None) -> Tensor:
    """Latents (B, C, F, h, w) to pictures: uint8 (B, F, H, W, 3), RGB, on the CPU; one frame at a time."""
    frames = rearrange(latents / base.vae.config.scaling_factor, "b c f h w -> (b f) c h w")
    decoded = []
    for number, frame in enumerate(frames):
        if on_frame is not None:
            on_frame(number, len(frames))
        decoded.append(base.vae.decode(frame[None]).sample.float().cpu())
    if on_frame is not None:
        on_frame(len(frames), len(frames))
    pixels = torch.cat(decoded)
    pixels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(pixels, "(b f) c h w -> b f h w c", b=latents.shape[0])

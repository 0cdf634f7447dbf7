"""The denoising loop of MotionBooth (paper, sections 3.3 and 3.4), from a shot to frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
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
from motionbooth.progress.reporting import OnProgress, ignore_progress

OnEstimate = Callable[[Tensor], None]  # called after each step with the current estimate of the clean latents


@dataclass(frozen=True)
class SamplingInputs:
    """What the denoising loop starts from: B samples of F frames."""

    latents: Tensor  # (B, C, F, h, w), noise of variance 1
    prompt_embeds: Tensor  # (B, tokens, D)
    negative_prompt_embeds: Tensor  # (B, tokens, D)
    guidance_scale: float  # 1 or less: no unconditional pass
    plans: Sequence[StepPlan]  # one for each step
    pick: Pick  # which cells fill the holes of a shift
    generators: Sequence[torch.Generator] = ()  # for samplers that draw noise (DDPM): one, or one for each sample

    @classmethod
    def from_prompts(
        cls,
        base: Base,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        seeds: Sequence[int],
        plans: Sequence[StepPlan],
        guidance_scale: float | None = None,
    ) -> SamplingInputs:
        """One sample for each prompt, all of its randomness from its own seed. `guidance_scale`: the base's default."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return cls(
            torch.cat([initial_noise(base, generator) for generator in generators]),
            base.embed(prompts),
            base.embed(negative_prompts),
            base.settings.guidance_scale if guidance_scale is None else guidance_scale,
            plans,
            random_pick(*generators),
            generators,
        )


@torch.no_grad()
def denoise(
    base: Base, inputs: SamplingInputs, on_step: OnProgress = ignore_progress, on_estimate: OnEstimate | None = None
) -> Tensor:
    """Clean latents (B, C, F, h, w). An exception of `on_step` ends the run; the controls are cleared in any case."""
    guided, plans = inputs.guidance_scale > 1, inputs.plans
    text = torch.cat([inputs.negative_prompt_embeds, inputs.prompt_embeds]) if guided else inputs.prompt_embeds
    base.scheduler.set_timesteps(len(plans), device=base.device)
    latents = inputs.latents * base.scheduler.init_noise_sigma
    try:
        for step, (t, plan) in enumerate(zip(base.scheduler.timesteps, plans, strict=True), start=1):
            latents = _shift(latents, plan, inputs.pick)
            _set_boxes(base, plan.boxes, latents, guided)
            predicted = _predict(base, latents, t, text, inputs.guidance_scale)
            if plan.scenery is not None:
                predicted = with_merged_scenery(base, predicted, t, latents, plan.scenery)
            stepped = base.scheduler.step(predicted, t, latents, generator=list(inputs.generators) or None)
            latents = stepped.prev_sample
            on_step(step, len(plans))
            if on_estimate is not None:
                on_estimate(stepped.pred_original_sample)
    finally:
        base.control.clear()
    return latents


def _shift(latents: Tensor, plan: StepPlan, pick: Pick) -> Tensor:
    """Camera control (section 3.4): the latents move against the camera."""
    if plan.moves and plan.free is not None:
        latents = shift_latents(latents, plan.moves, plan.free, pick)
    return shift_by_phase(latents, plan.fractions) if plan.fractions else latents


def _set_boxes(base: Base, boxes: BoxControl | None, latents: Tensor, guided: bool) -> None:
    """Box control (section 3.3), on the conditional half of the batch only."""
    batch, _, frames, height, width = latents.shape
    conditional = [boxes] * batch
    base.control.set_boxes([None] * batch + conditional if guided else conditional, (height, width), frames)


def _predict(base: Base, latents: Tensor, t: Tensor, text: Tensor, guidance_scale: float) -> Tensor:
    """The UNet's prediction with classifier-free guidance; `text` has both halves if guidance_scale > 1."""
    batch = torch.cat([latents, latents]) if guidance_scale > 1 else latents
    predicted = base.unet(base.scheduler.scale_model_input(batch, t), t, text).sample
    if guidance_scale <= 1:
        return predicted
    unconditional, conditional = predicted.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


def with_merged_scenery(base: Base, predicted: Tensor, t: Tensor, latents: Tensor, scenery: Scenery) -> Tensor:
    """The UNet's prediction changed so that the clean clip it implies has the same scenery in all frames.

    In float32 outside the autoencoder: near the last step, 1 - alpha is 0 in half precision.
    """
    alpha = base.scheduler.alphas_cumprod.to(latents.device)[t].float()
    signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
    is_velocity = base.scheduler.config.prediction_type == "v_prediction"
    noisy, output = latents.float(), predicted.float()
    clean = signal * noisy - sigma * output if is_velocity else (noisy - sigma * output) / signal
    merged = torch.stack([_merged(base, clip, scenery) for clip in clean])
    cells = scenery.cells.to(latents.device)  # (F, h, w): the subjects do not pass through the autoencoder
    clean = torch.where(cells, merged, clean)
    changed = (signal * noisy - clean) / sigma if is_velocity else (noisy - signal * clean) / sigma
    return changed.to(predicted.dtype)


def _merged(base: Base, latents: Tensor, scenery: Scenery) -> Tensor:
    """Clean latents (C, F, h, w) of one clip, decoded, merged and encoded; float32."""
    scale = base.vae.config.scaling_factor
    frames = base.vae.decode(rearrange(latents / scale, "c f h w -> f c h w").to(base.dtype)).sample
    encoded = base.vae.encode(merge_scenery(frames, scenery).to(base.dtype)).latent_dist.mode() * scale
    return rearrange(encoded.float(), "f c h w -> c f h w")


def shared_noise(shape: Sequence[int], rho: float, generator: torch.Generator) -> Tensor:
    """Noise (B, C, F, h, w) of variance 1, a share rho of it common to all frames: sqrt(1 - rho) n_f + sqrt(rho) n_0.

    Drawn on the CPU in float32, so that a seed gives the same noise on every device.
    """
    noise = torch.randn(*shape, generator=generator)
    if rho == 0:
        return noise
    batch, channels, _, height, width = shape
    common = torch.randn(batch, channels, 1, height, width, generator=generator)
    return math.sqrt(1 - rho) * noise + math.sqrt(rho) * common


def initial_noise(base: Base, generator: torch.Generator) -> Tensor:
    """The initial noise of one clip: (1, C, F, h, w) at the base's size, with the base's share of common noise."""
    shape = (1, base.unet.config.in_channels, base.settings.frames, *base.latent_size)
    return shared_noise(shape, base.settings.shared_noise, generator).to(base.device, base.dtype)


def generate_clip(
    base: Base,
    spec: GenerateSpec,
    on_step: OnProgress = ignore_progress,
    on_estimate: OnEstimate | None = None,
    on_frame: OnProgress = ignore_progress,
) -> Tensor:
    """The clip of a shot: uint8 (F, H, W, 3) RGB, at the model's own size and number of frames.

    `on_frame` is called for each decoded frame. Raises InvalidInput if the shot or the prompt does not fit the model.
    """
    return generate_takes(base, spec, [spec.seed], on_step, on_estimate, on_frame)[0]


def generate_takes(
    base: Base,
    spec: GenerateSpec,
    seeds: Sequence[int],
    on_step: OnProgress = ignore_progress,
    on_estimate: OnEstimate | None = None,
    on_frame: OnProgress = ignore_progress,
) -> Tensor:
    """One take of the shot for each seed, in one batch: uint8 (N, F, H, W, 3) RGB.

    Each take equals the clip that `generate_clip` makes from its seed, but for the last bits: kernels round differently
    for batches of another size. Raises InvalidInput as `generate_clip` does.
    """
    settings, shot = base.settings, spec.shot
    if shot.frames != settings.frames:
        raise InvalidInput(
            "The shot has boxes for {found} frames, but {model} generates {expected}. "
            "Read the shot from the scene again for this model.",
            found=shot.frames,
            model=settings.title,
            expected=settings.frames,
        )
    prompts, negative_prompts = [spec.prompt] * len(seeds), [spec.negative_prompt] * len(seeds)
    plans = plan_shot(base, spec)
    inputs = SamplingInputs.from_prompts(base, prompts, negative_prompts, seeds, plans, spec.guidance_scale)
    return decode(base, denoise(base, inputs, on_step, on_estimate), on_frame)


def plan_shot(base: Base, spec: GenerateSpec) -> list[StepPlan]:
    """The controls of every step. The prompt must contain every subject's phrase even if box control is off."""
    shot, control = spec.shot, base.settings.control
    if shot.subjects and not spec.box_control:  # without boxes, subjects cannot be distinguished from scenery
        control = msgspec.structs.replace(control, merge_until=0)
    tokens = prompt_tokens(
        base.tokenizer, spec.prompt, [track.phrase for track in shot.subjects], spec.background_phrase
    )
    return plan_steps(
        control,
        spec.num_inference_steps or base.settings.num_inference_steps,
        base.latent_size,
        camera=shot.camera if spec.camera_control else CameraPath.still(shot.frames),
        tracks=[track.boxes for track in shot.subjects] if spec.box_control else [],
        tokens=tokens,
    )


@torch.no_grad()
def decode(base: Base, latents: Tensor, on_frame: OnProgress = ignore_progress) -> Tensor:
    """Latents (B, C, F, h, w) to pictures: uint8 (B, F, H, W, 3) RGB on the CPU, decoded one frame at a time."""
    frames = rearrange(latents / base.vae.config.scaling_factor, "b c f h w -> (b f) c h w")
    decoded = []
    on_frame(0, len(frames))
    for number, frame in enumerate(frames, start=1):
        decoded.append(base.vae.decode(frame[None]).sample.float().cpu())
        on_frame(number, len(frames))
    pixels = ((torch.cat(decoded) / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(pixels, "(b f) c h w -> b f h w c", b=latents.shape[0])

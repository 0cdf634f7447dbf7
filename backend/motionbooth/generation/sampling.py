"""The denoising loop of MotionBooth (paper, sections 3.3 and 3.4), from a shot to frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import msgspec
import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput, JobFailed
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.long_shots import windows_of
from motionbooth_protocol.motion import CameraPath
from torch import Tensor

from motionbooth.control.camera import (
    Pick,
    gather_cells,
    move_with_memory,
    random_pick,
    shift_by_phase,
    shifted_cells,
)
from motionbooth.control.guide import GuideControl
from motionbooth.control.homography import filled
from motionbooth.control.plan import StepPlan, plan_steps, windows_in_steps
from motionbooth.control.prompt import without_phrases
from motionbooth.control.scenery import Scenery, merge_scenery
from motionbooth.generation.context_windows import predict
from motionbooth.generation.guide import BlobPath, encoded, read_guide, with_guide
from motionbooth.models.base import Base
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
    windows: Sequence[range] = ()  # the latent frames of each call of the network; empty: all in one

    @classmethod
    def from_prompts(
        cls,
        base: Base,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        seeds: Sequence[int],
        plans: Sequence[StepPlan],
        guidance_scale: float | None = None,
        outside_prompts: Sequence[str] = (),
        frames: int | None = None,
    ) -> SamplingInputs:
        """One sample for each prompt, all of its randomness from its own seed.

        `guidance_scale`, `frames`: the base's default. `outside_prompts`: those of the cells outside the boxes, if the
        plans have any.
        """
        text = base.embed(prompts)
        if outside_prompts:
            text = torch.cat([text, base.embed(outside_prompts)], dim=1)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        moving = any(plan.moves or plan.fractions or plan.warp for plan in plans)
        own = base.settings.frames
        windows = windows_of(frames or own, own, base.temporal)
        return cls(
            torch.cat([initial_noise(base, generator, moving, windows[-1].stop) for generator in generators]),
            text,
            base.embed(negative_prompts),
            base.settings.guidance_scale if guidance_scale is None else guidance_scale,
            plans,
            random_pick(*generators),
            generators,
            windows,
        )


@torch.no_grad()
def denoise(
    base: Base, inputs: SamplingInputs, on_step: OnProgress = ignore_progress, on_estimate: OnEstimate | None = None
) -> Tensor:
    """Clean latents (B, C, F, h, w). An exception of `on_step` ends the run; the controls are cleared in any case.

    `on_step` is called after each window of each step.
    """
    plans, sampler = inputs.plans, base.scheduler
    windows = inputs.windows or [range(inputs.latents.shape[2])]
    calls = len(plans) * len(windows)
    text = inputs.prompt_embeds, inputs.negative_prompt_embeds, inputs.guidance_scale
    options: dict[str, Any] = {}
    if inputs.generators and "generator" in signature(sampler.step).parameters:
        options["generator"] = list(inputs.generators)
    sampler.set_timesteps(len(plans), device=base.device)
    if hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(0)
    latents = inputs.latents * getattr(sampler, "init_noise_sigma", 1.0)
    try:
        for step, (t, plan) in enumerate(zip(sampler.timesteps, plans, strict=True), start=1):
            latents = _shift(sampler, latents, plan, inputs.pick)
            on_window = partial(_report_window, on_step, calls, (step - 1) * len(windows))
            predicted = predict(base, latents, t, text, plan.boxes, windows, on_window)
            if plan.scenery is not None:
                predicted = with_merged_scenery(base, predicted, t, latents, plan.scenery)
            if plan.guide is not None:
                predicted = guided_prediction(base, predicted, t, latents, plan.guide)
            estimate = None if on_estimate is None else base.clean_estimate(predicted, t, latents)
            latents = sampler.step(predicted, t, latents, **options, return_dict=False)[0]
            on_step(step * len(windows), calls)
            if on_estimate is not None and estimate is not None:
                on_estimate(estimate)
    finally:
        base.control.clear()
    return latents


def _report_window(on_step: OnProgress, calls: int, before: int, done: int) -> None:
    on_step(before + done, calls)


def _shift(sampler: Any, latents: Tensor, plan: StepPlan, pick: Pick) -> Tensor:
    """Camera control (section 3.4): the latents move against the camera, and with them what the sampler remembers."""
    if plan.free is not None and (plan.moves or plan.warp):
        if plan.warp:
            source = filled(plan.warp.source, plan.free, pick)
        else:
            source = shifted_cells(len(latents), plan.moves, plan.free, pick)
        latents = move_with_memory(sampler, latents, partial(gather_cells, source=source.to(latents.device)))
    if plan.fractions:
        latents = move_with_memory(sampler, latents, partial(_shift_by_phase, plan=plan))
    return latents


def _shift_by_phase(latents: Tensor, plan: StepPlan) -> Tensor:
    """The guide is already where it ends, which may be between two cells."""
    shifted = shift_by_phase(latents, plan.fractions)
    return shifted if plan.guide is None else torch.lerp(shifted, latents, plan.guide.share.to(latents))


def guided_prediction(base: Base, predicted: Tensor, t: Tensor, latents: Tensor, guide: GuideControl) -> Tensor:
    """The prediction changed so that the clean clip it implies has the guide in it; the same bits where it has not."""
    clean = guide.applied_to(base.clean_estimate(predicted, t, latents))
    guided = base.prediction_of(clean, t, latents).to(predicted.dtype)
    return torch.where(guide.share.to(latents) > 0, guided, predicted)


def with_merged_scenery(base: Base, predicted: Tensor, t: Tensor, latents: Tensor, scenery: Scenery) -> Tensor:
    """The prediction changed so that the clean clip it implies has the same scenery in all frames."""
    clean = base.clean_estimate(predicted, t, latents)
    merged = torch.stack([_merged(base, clip, scenery) for clip in clean])
    cells = scenery.latent_cells.to(latents.device)  # the subjects do not pass through the autoencoder
    return base.prediction_of(torch.where(cells, merged, clean), t, latents).to(predicted.dtype)


def _merged(base: Base, latents: Tensor, scenery: Scenery) -> Tensor:
    """Clean latents (C, F, h, w) of one clip, decoded, merged and encoded; float32."""
    with base.vae_at_work():
        return base.long_encode(merge_scenery(base.long_to_pixels(latents), scenery)).float()


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


def initial_noise(base: Base, generator: torch.Generator, moving: bool, frames: int | None = None) -> Tensor:
    """The initial noise of one clip: (1, C, F, h, w), with the base's share of common noise. `moving`: the camera's."""
    rho = max(base.settings.shared_noise, base.settings.control.shared_noise if moving else 0.0)
    channels, own, *size = base.latent_shape
    noise = shared_noise((1, channels, frames or own, *size), rho, generator)
    return noise.to(base.device, base.latent_dtype)


def generate_clip(
    base: Base,
    spec: GenerateSpec,
    on_step: OnProgress = ignore_progress,
    on_estimate: OnEstimate | None = None,
    on_frame: OnProgress = ignore_progress,
    blob_path: BlobPath = Path,
) -> Tensor:
    """The clip of a shot: uint8 (F, H, W, 3) RGB, at the model's own size and the shot's frames.

    `on_frame` is called for each decoded frame. `blob_path`: the file of the guide, by its sha256; by default, the spec
    has its path. Raises InvalidInput if the shot, the prompt or the guide does not fit the model.
    """
    return in_eight_bits(generate_exactly(base, spec, [spec.seed], on_step, on_estimate, on_frame, blob_path)[0])


def generate_exactly(
    base: Base,
    spec: GenerateSpec,
    seeds: Sequence[int],
    on_step: OnProgress = ignore_progress,
    on_estimate: OnEstimate | None = None,
    on_frame: OnProgress = ignore_progress,
    blob_path: BlobPath = Path,
) -> Tensor:
    """One take of the shot for each seed, in one batch: float32 (N, F, H, W, 3) RGB, 0..1.

    Each take equals the clip that `generate_clip` makes from its seed, but for the last bits: kernels round differently
    for batches of another size. Raises InvalidInput as `generate_clip` does, and JobFailed for values that are not
    numbers.
    """
    check_frames(base, spec)
    prompts, negative_prompts = [spec.prompt] * len(seeds), [spec.negative_prompt] * len(seeds)
    plans = plan_shot(base, spec)
    if spec.guide is not None and (guide := read_guide(spec, base.settings, blob_path)) is not None:
        strengths = spec.guide.subject_strength, spec.guide.background_strength
        plans = with_guide(plans, encoded(base, guide), base.noise_levels(len(plans)), *strengths)
    outside = [outside_prompt(spec)] * len(seeds) if splits_prompt(base, spec) else []
    inputs = SamplingInputs.from_prompts(
        base, prompts, negative_prompts, seeds, plans, spec.guidance_scale, outside, spec.shot.frames
    )
    frames = decode_exactly(base, denoise(base, inputs, on_step, on_estimate), on_frame)
    if frames.isnan().any():
        raise JobFailed(
            "{model} computed values that are not numbers, which would be black pixels. Generate the shot with weaker "
            "styles, without this subject or in a higher precision (--precision float32).",
            model=base.settings.title,
        )
    return frames


def check_frames(base: Base, spec: GenerateSpec) -> None:
    """Raises InvalidInput if the model cannot generate the shot's number of frames."""
    found, own, title = spec.shot.frames, base.settings.frames, base.settings.title
    if spec.long_shot == "spread" and found != own:
        raise InvalidInput(
            "The shot has boxes for {found} frames, but {model} generates {expected}. "
            "Read the shot from the scene again for this model.",
            found=found,
            model=title,
            expected=own,
        )
    if found < own or (found - 1) % base.temporal:
        raise InvalidInput(
            "The shot has boxes for {found} frames, but in windows {model} generates {least} or more, and 1 + a "
            "multiple of {step}. Read the shot from the scene again for this model.",
            found=found,
            model=title,
            least=own,
            step=base.temporal,
        )


def network_calls(base: Base, spec: GenerateSpec) -> int:
    """How often `denoise` reports its progress: once for each window of each step."""
    steps = spec.num_inference_steps or base.settings.num_inference_steps
    return steps * len(windows_of(spec.shot.frames, base.settings.frames, base.temporal))


def plan_shot(base: Base, spec: GenerateSpec) -> list[StepPlan]:
    """The controls of every step. The prompt must contain every subject's phrase even if box control is off."""
    shot, control = spec.shot, base.settings.control
    if shot.subjects and not spec.box_control:  # without boxes, subjects cannot be distinguished from scenery
        control = msgspec.structs.replace(control, merge_until=0)
    tokens = base.prompt_tokens(spec.prompt, [track.phrase for track in shot.subjects], spec.background_phrase)
    if splits_prompt(base, spec):
        split = range(tokens.length, 2 * tokens.length)
        tokens = replace(tokens, length=split.stop, outside=split, background=())
    steps = spec.num_inference_steps or base.settings.num_inference_steps
    return plan_steps(
        windows_in_steps(control, base.noise_levels(steps)),
        steps,
        base.latent_size,
        camera=shot.camera if spec.camera_control else CameraPath.still(shot.frames),
        tracks=[track.boxes for track in shot.subjects] if spec.box_control else [],
        tokens=tokens,
        patch=base.patch,
        temporal=base.temporal,
    )


def splits_prompt(base: Base, spec: GenerateSpec) -> bool:
    """Whether the cells outside the boxes have a prompt of their own."""
    return base.settings.control.split_prompt and spec.box_control and bool(spec.shot.subjects)


def outside_prompt(spec: GenerateSpec) -> str:
    """The prompt of the cells outside the boxes."""
    return spec.background_phrase or without_phrases(spec.prompt, [track.phrase for track in spec.shot.subjects])


def decode_frames(base: Base, latents: Tensor, chosen: Sequence[int]) -> Tensor:
    """Some frames of the clips: uint8 (B, n, H, W, 3) RGB. A base that encodes frames one by one decodes no other."""
    return decode(base, latents[:, :, chosen]) if base.temporal == 1 else decode(base, latents)[:, chosen]


def decode(base: Base, latents: Tensor, on_frame: OnProgress = ignore_progress) -> Tensor:
    """Latents (B, C, F, h, w) to pictures: uint8 (B, F, H, W, 3) RGB on the CPU."""
    return in_eight_bits(decode_exactly(base, latents, on_frame))


def in_eight_bits(frames: Tensor) -> Tensor:
    """Values 0..1 as uint8."""
    return (frames * 255).round().to(torch.uint8)


@torch.no_grad()
def decode_exactly(base: Base, latents: Tensor, on_frame: OnProgress = ignore_progress) -> Tensor:
    """Latents (B, C, F, h, w) to pictures: float32 (B, F, H, W, 3) RGB, 0..1, on the CPU.

    Decoded one frame at a time, or one clip at a time if the base encodes several frames together.
    """
    batch, _, frames, _, _ = latents.shape
    pieces = rearrange(latents, "b c f h w -> (b f) c 1 h w") if base.temporal == 1 else latents
    decoded: list[Tensor] = []
    count = batch * (1 + (frames - 1) * base.temporal)
    on_frame(0, count)
    with base.vae_at_work():
        for piece in pieces:
            decoded.append(base.to_pixels(piece).float().cpu())
            on_frame(count * len(decoded) // len(pieces), count)
    pixels = torch.cat(decoded).div_(2).add_(0.5).clamp_(0, 1)
    return rearrange(pixels, "(b f) c h w -> b f h w c", b=batch)

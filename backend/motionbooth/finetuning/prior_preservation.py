"""Prior-preservation clips, which keep the base's prior during fine-tuning (paper: video preservation loss).

The authors use 500 clips of Panda-70M, which is no longer available. Here the base generates the clips, once, and they
are cached: the prior to be preserved is what the base can generate. A base's folder may have those of its defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from motionbooth.control.plan import StepPlan
from motionbooth.finetuning.latent_cache import find, is_cached, save_shipped, store
from motionbooth.finetuning.pasting import Background
from motionbooth.finetuning.trainer import autocast
from motionbooth.generation.batches import in_batches
from motionbooth.generation.sampling import SamplingInputs, decode_frames, denoise
from motionbooth.models.base import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import Source
from motionbooth.progress.reporting import OnProgress, ignore_progress

BATCH_SIZE = 4  # clips; fewer if memory does not hold as many


def prior_clips(
    base: Base,
    settings: TrainSettings,
    on_step: OnProgress = ignore_progress,
    prompts: Sequence[str] | None = None,
) -> tuple[Tensor, list[str]]:
    """`settings.prior_clips` clips as latents (K, C, F, h, w) and their captions, from the cache or generated now.

    The prompts are used in turn; by default they are the base's `prior_prompts`. Each clip is cached as soon as its
    batch is done, so that an interruption costs one batch at most. On a GPU the network computes in
    `settings.precision`, as in training. `on_step` counts the sampling steps of all clips, cached ones included; it is
    not called if all are cached.
    """
    captions = _captions(base.source, settings, prompts)
    keys = [_cache_key(base.source, settings, caption, seed) for seed, caption in enumerate(captions)]
    found = [find(key, _shipped(base.source)) for key in keys]
    missing = [seed for seed, clip in enumerate(found) if clip is None]
    for seed, clip in generated_clips(base, settings, captions, missing, on_step):
        found[seed] = store(keys[seed], clip)
    clips = [clip for clip in found if clip is not None]
    return torch.stack(clips) if clips else torch.zeros(0), captions


def missing_prior_clips(source: Source, settings: TrainSettings, prompts: Sequence[str] | None = None) -> int:
    """The number of clips that `prior_clips` would have to generate."""
    captions = _captions(source, settings, prompts)
    keys = [_cache_key(source, settings, caption, seed) for seed, caption in enumerate(captions)]
    return sum(not is_cached(key, _shipped(source)) for key in keys)


def generated_backgrounds(
    base: Base, settings: TrainSettings, on_step: OnProgress = ignore_progress
) -> list[Background]:
    """The base's backgrounds, `paste.frames` frames of each, from the cache or generated now as prior clips are.

    Empty if `settings` do not paste.
    """
    if settings.pasting is None:
        return []
    one_each, prompts = _of_backgrounds(base.source, settings)
    clips, _ = prior_clips(base, one_each, on_step, prompts)
    count = settings.clip_frames or base.settings.frames
    chosen = np.linspace(0, count - 1, min(settings.pasting.frames, count)).round().astype(int).tolist()
    frames = decode_frames(base, clips.to(base.device, base.dtype), chosen).numpy()
    return [Background(*pair) for pair in zip(base.source.settings.backgrounds, frames, strict=True)]


def missing_backgrounds(source: Source, settings: TrainSettings) -> int:
    """The number of clips that `generated_backgrounds` would have to generate."""
    return missing_prior_clips(source, *_of_backgrounds(source, settings)) if settings.pasting else 0


def ship_clips(base: Base, settings: TrainSettings, on_step: OnProgress = ignore_progress) -> None:
    """Write all clips that a training with `settings` needs into the base's folder, generating what is not cached."""
    one_each, prompts = _of_backgrounds(base.source, settings)
    prior_clips(base, settings, on_step)
    prior_clips(base, one_each, on_step, prompts)
    clips = [(caption, seed) for seed, caption in enumerate(_captions(base.source, settings, None))]
    clips += [(caption, seed) for seed, caption in enumerate(prompts)]
    save_shipped(_shipped(base.source), [_cache_key(base.source, settings, *clip) for clip in clips])


def _shipped(source: Source) -> Path:
    return source.folder / "prior_clips.safetensors"


def _of_backgrounds(source: Source, settings: TrainSettings) -> tuple[TrainSettings, list[str]]:
    """Settings and prompts with which `prior_clips` returns one clip of each background."""
    prompts = list(source.settings.backgrounds.values())
    return msgspec.structs.replace(settings, prior_clips=len(prompts)), prompts


def _captions(source: Source, settings: TrainSettings, prompts: Sequence[str] | None) -> list[str]:
    prompts = prompts or source.settings.prior_prompts
    return [prompts[i % len(prompts)] for i in range(settings.prior_clips)]


def _cache_key(source: Source, settings: TrainSettings, caption: str, seed: int) -> Any:
    """Everything that a clip's latents depend on."""
    base = source.settings
    frames = settings.clip_frames or base.frames
    sampling = (base.num_inference_steps, base.guidance_scale, base.shared_noise)
    return ["prior clip", source.network_sha256, base.width, base.height, frames, *sampling, caption, seed]


def generated_clips(
    base: Base, settings: TrainSettings, captions: Sequence[str], missing: Sequence[int], on_step: OnProgress
) -> Iterator[tuple[int, Tensor]]:
    """The missing clips (C, F, h, w), each with its seed, which is also its index in `captions`."""
    base = base.of_length(settings.clip_frames)
    steps = base.settings.num_inference_steps
    cached = len(captions) - len(missing)

    def sample(seeds: Sequence[int], first: int) -> Tensor:
        def on_batch_step(done: int, _: int) -> None:
            on_step((cached + first) * steps + done * len(seeds), len(captions) * steps)

        prompts = [captions[seed] for seed in seeds]
        plans = [StepPlan()] * steps
        with autocast(base, settings):
            inputs = SamplingInputs.from_prompts(base, prompts, [""] * len(seeds), seeds, plans)
            return denoise(base, inputs, on_batch_step)

    if missing:
        on_step(cached * steps, len(captions) * steps)
    yield from in_batches(missing, BATCH_SIZE, sample)

"""Ordinary clips, which keep a base what it is while it learns a subject (paper: video preservation loss).

The authors take 500 clips of Panda-70M, which can no longer be fetched. Ours are made by the base itself, once, and
kept in the user's cache: what is to be preserved is what the base can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from motionbooth.control.camera import random_pick
from motionbooth.control.plan import StepPlan
from motionbooth.finetuning.latent_cache import find, is_kept, keep
from motionbooth.finetuning.pasting import Place
from motionbooth.finetuning.trainer import arithmetic
from motionbooth.generation.sampling import OnStep, decode, denoise, initial_noise
from motionbooth.models.registry import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import Source

TOGETHER = 4  # clips generated in one batch, where memory holds as many


def ordinary_clips(
    base: Base, settings: TrainSettings, on_step: OnStep, prompts: Sequence[str] | None = None
) -> tuple[Tensor, list[str]]:
    """`settings.clips` clips as latents (K, C, F, h, w) and their captions: from the cache, or generated now.

    `prompts` take turns; the base's own ordinary ones by default. Each clip is kept as soon as its batch is done, so
    that whatever breaks this off costs one batch at most. On a GPU the UNet computes in `settings.precision`, as in
    training. `on_step` counts the sampling steps of all clips, those that were there already among them; it is not
    called where all were.
    """
    captions = _captions(base.source, settings, prompts)
    keys = [_depends_on(base.source, caption, seed) for seed, caption in enumerate(captions)]
    found = [find(key) for key in keys]
    missing = [seed for seed, clip in enumerate(found) if clip is None]
    steps = base.settings.steps
    there = (len(captions) - len(missing)) * steps

    def on_missing(done: int) -> None:
        on_step(there + done, len(captions) * steps)

    for seed, clip in _generated(base, settings, captions, missing, on_missing):
        found[seed] = keep(keys[seed], clip)
    clips = [clip for clip in found if clip is not None]
    return torch.stack(clips) if clips else torch.zeros(0), captions


def missing_clips(source: Source, settings: TrainSettings, prompts: Sequence[str] | None = None) -> int:
    """How many clips `ordinary_clips` would have to generate."""
    captions = _captions(source, settings, prompts)
    return sum(not is_kept(_depends_on(source, caption, seed)) for seed, caption in enumerate(captions))


def generated_places(base: Base, settings: TrainSettings, on_step: OnStep) -> list[Place]:
    """The base's places, some frames of a clip of each: from the cache, or generated now, as ordinary clips are.

    Empty where `settings` do not paste.
    """
    if settings.pasting is None:
        return []
    one_each, prompts = _of_places(base.source, settings)
    clips, _ = ordinary_clips(base, one_each, on_step, prompts)
    taken = np.linspace(0, clips.shape[2] - 1, min(settings.pasting.frames, clips.shape[2])).round().astype(int)
    shown = decode(base, clips[:, :, taken].to(base.device, base.dtype)).numpy()
    return [Place(phrase, frames) for phrase, frames in zip(base.source.settings.places, shown, strict=True)]


def missing_places(source: Source, settings: TrainSettings) -> int:
    """How many clips `generated_places` would have to generate."""
    return missing_clips(source, *_of_places(source, settings)) if settings.pasting else 0


def _of_places(source: Source, settings: TrainSettings) -> tuple[TrainSettings, list[str]]:
    """Settings and prompts with which `ordinary_clips` gives one clip of each place."""
    prompts = list(source.settings.places.values())
    return msgspec.structs.replace(settings, clips=len(prompts)), prompts


def _captions(source: Source, settings: TrainSettings, prompts: Sequence[str] | None) -> list[str]:
    prompts = prompts or source.settings.ordinary_prompts
    return [prompts[i % len(prompts)] for i in range(settings.clips)]


def _depends_on(source: Source, caption: str, seed: int) -> Any:
    """All that a clip's latents depend on."""
    base = source.settings
    how = (base.width, base.height, base.frames, base.steps, base.guidance, base.shared_noise)
    return ["ordinary clip", source.fingerprint, how, caption, seed]


def _generated(
    base: Base, settings: TrainSettings, captions: Sequence[str], seeds: Sequence[int], on_done: Callable[[int], None]
) -> Iterator[tuple[int, Tensor]]:
    """Each of the seeds with its clip (C, F, h, w). Where memory does not hold TOGETHER clips, fewer at a time.

    `on_done`: told how many sampling steps of single clips are done.
    """
    together, first, steps = TOGETHER, 0, base.settings.steps
    if seeds:
        on_done(0)
    while first < len(seeds):
        batch = seeds[first : first + together]

        def on_step(done: int, _: int, first: int = first, size: int = len(batch)) -> None:
            on_done(first * steps + done * size)

        try:
            clips = _sampled(base, settings, [captions[seed] for seed in batch], batch, on_step)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            together = len(batch) // 2
            continue
        yield from zip(batch, clips, strict=True)
        first += len(batch)


def _sampled(
    base: Base, settings: TrainSettings, captions: Sequence[str], seeds: Sequence[int], on_step: OnStep
) -> Tensor:
    """A clip for each of the captions, each with the noise of its own seed, in one batch."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with arithmetic(base, settings):
        return denoise(
            base,
            torch.cat([initial_noise(base, generator) for generator in generators]),
            base.embed(captions),
            base.embed([""] * len(captions)),
            base.settings.guidance,
            [StepPlan()] * base.settings.steps,
            random_pick(*generators),
            on_step,
            chance=generators,
        )

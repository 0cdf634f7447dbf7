"""Ordinary clips, which keep a base what it is while it learns a subject (paper: video preservation loss).

The authors take 500 clips of Panda-70M, which can no longer be fetched. Ours are made by the base itself, once, and
kept in the user's cache: what is to be preserved is what the base can do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..control.camera import random_pick
from ..control.plan import StepPlan
from ..models.registry import Base
from ..sampling import OnStep, denoise, initial_noise
from .keeping import kept

TOGETHER = 4  # clips filmed in one batch


def ordinary_clips(
    base: Base, count: int, on_step: OnStep, prompts: Sequence[str] | None = None
) -> tuple[Tensor, list[str]]:
    """`count` clips as latents (K, C, F, h, w) and their captions: from the cache, or filmed now and kept there.

    `prompts` are filmed in turn; the base's own ordinary ones by default.
    """
    prompts = prompts or base.settings.ordinary_prompts
    captions = [prompts[i % len(prompts)] for i in range(count)]
    if not count:
        return torch.zeros(0), captions
    settings = base.settings
    how = (settings.width, settings.height, settings.frames, settings.steps, settings.guidance, settings.shared_noise)
    depends_on = [base.source.fingerprint, how, captions]
    return kept(depends_on, lambda: _film_all(base, captions, on_step)), captions


def _film_all(base: Base, captions: list[str], on_step: OnStep) -> Tensor:
    batches = [captions[i : i + TOGETHER] for i in range(0, len(captions), TOGETHER)]
    steps = base.settings.steps

    def film_batch(number: int, batch: list[str]) -> Tensor:
        generator = torch.Generator().manual_seed(number)
        return denoise(
            base,
            initial_noise(base, generator, len(batch)),
            base.embed(batch),
            base.embed([""] * len(batch)),
            base.settings.guidance,
            [StepPlan()] * steps,
            random_pick(generator),
            lambda done, _: on_step(number * steps + done, len(batches) * steps),
            chance=[generator],
        )

    return torch.cat([film_batch(number, batch) for number, batch in enumerate(batches)])

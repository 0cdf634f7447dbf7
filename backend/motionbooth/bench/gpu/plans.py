"""The memory plans on the card: what each one that fits needs for a clip of a network of a published size."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from motionbooth.bench.gpu.card import peak_gb
from motionbooth.bench.gpu.part import Finding, attempted
from motionbooth.bench.measures import Measure
from motionbooth.generation.sampling import decode
from motionbooth.models.base import Base
from motionbooth.models.memory.estimate import Estimate, configs_of, denoise_once, fits, known_source
from motionbooth.models.memory.moving import visiting
from motionbooth.models.memory.plans import Plan
from motionbooth.models.registry import family_of

SECONDS = 60.0
"""No further plan is begun after so many."""


def published_text_encoder(name: str) -> nn.Module:
    """Of a published model, in half precision, without weights."""
    source = known_source(name)
    configs = configs_of(source)
    family = family_of(configs)
    return family.without_weights(source, configs, family.half).text_encoder


def plan_measures(
    name: str, base: Base, text_encoder: nn.Module, estimates: Iterable[Estimate], free: int | None
) -> Iterator[Finding]:
    """Predicted and measured peak of each plan that fits `free` bytes, from the fastest on. `estimates`: of all plans.

    `base` is on the card, and left under the last plan. The text encoder has no weights; nothing is computed with it.
    """
    base = replace(base, text_encoder=text_encoder)
    began = time.monotonic()
    for estimate in estimates:
        if free is not None and not fits(estimate.peak, free):
            continue
        if time.monotonic() - began > SECONDS:
            return
        yield from attempted(f"plan {estimate.plan.name}", base.device, partial(_peaks, name, base, estimate))


def _peaks(name: str, base: Base, estimate: Estimate) -> Iterator[Finding]:
    plan = estimate.plan
    placed = place(base, plan)
    peak = peak_gb(base.device, partial(one_clip, placed))
    yield Measure(f"{name}_{plan.name}_predicted_gb", estimate.peak / 1e9, "GB")
    if peak is not None:
        yield Measure(f"{name}_{plan.name}_peak_gb", peak, "GB")


def place(base: Base, plan: Plan) -> Base:
    """The base under a plan that is smaller than its own; it shares all parts."""
    waiting = plan.waiting(["network"])
    text_encoder = base.text_encoder.to_empty(device="cpu" if "text_encoder" in waiting else base.device)
    text_encoder.tie_weights()  # or what was one tensor would be two
    for part in waiting & {"network", "vae"}:
        getattr(base, part).to("cpu")
    return base.arranged(plan)


@torch.no_grad()
def one_clip(base: Base) -> None:
    """Each stage of a clip once: the text encoder's visit, a controlled step, and decoding all frames."""
    if base.plan.text == "visit":
        with visiting(base.text_encoder, base.device):
            pass
    denoise_once(base)
    decode(base, torch.randn(1, *base.latent_shape, device=base.device, dtype=base.latent_dtype))

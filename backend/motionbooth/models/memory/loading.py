"""Loads a base model as the user chose and as the card's memory allows."""

from __future__ import annotations

import logging

import torch
from motionbooth_protocol.errors import InvalidInput

from motionbooth.models.base import Base
from motionbooth.models.memory.device import default_device, forget_peak, found_device, free_bytes, peak_bytes
from motionbooth.models.memory.estimate import chosen_plan
from motionbooth.models.memory.moving import layers_of
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import ALL, Plan, plan_named
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source

log = logging.getLogger("motionbooth.memory")


def load_planned(source: Source, computing: Computing, plan: Plan | None = None) -> Base:
    """The base model under `plan`, or else the user's or the fastest that fits. Raises InvalidInput."""
    computing.check()
    device = chosen_device(computing)
    dtype = None if computing.precision == "auto" else getattr(torch, computing.precision)
    plan = plan or plan_for(source, computing, device, dtype)
    base = load_base(source, device, dtype, plan=plan)
    if computing.attention in ("flash", "sage"):
        base.use_attention(computing.attention)
    if computing.compile and not base.plan.layers_visit:  # which would be traced again and again
        compile_layers(base)
    log_plan(base, base.plan.name)
    return base


def compile_layers(base: Base, backend: str = "inductor") -> None:
    """Let torch compile each layer of the network when it first computes (in place)."""
    for layer in layers_of(base.network):
        layer.compile(backend=backend)


def chosen_device(computing: Computing) -> str:
    """Raises InvalidInput if torch does not find it here."""
    here = found_device()
    if computing.device == "auto":
        return default_device()
    if computing.device in ("cpu", here):
        return computing.device
    raise InvalidInput(
        "torch finds no {device} device here, only: {here}. Leave --device out, or install the torch for it; "
        "`motionbooth doctor` says more.",
        device=computing.device,
        here=here,
    )


def plan_for(source: Source, computing: Computing, device: str, dtype: torch.dtype | None) -> Plan:
    """The user's plan, or the fastest that fits the device's free memory. Raises InvalidInput if none does."""
    if computing.memory != "auto":
        return plan_named(computing.memory)
    free = free_bytes(device)
    if free is None:
        return ALL
    estimate = chosen_plan(source, free, dtype)
    sizes = (estimate.peak / 1e9, free / 1e9)
    log.info("%s: memory plan %s, %.1f GB expected, %.1f GB free", source.name, estimate.plan.name, *sizes)
    return estimate.plan


def log_plan(base: Base, plan: str) -> None:
    """Log the plan of a base on an accelerator, and begin to measure its peak."""
    if base.device.type != "cpu":
        forget_peak(base.device.type)
        log.info("%s: memory plan %s", base.source.name, plan)


def log_peak(base: Base, plan: str | None = None) -> None:
    """Log the peak since the base was loaded, where torch counts it. `plan`: the base's own."""
    peak = None if base.device.type == "cpu" else peak_bytes(base.device.type)
    if peak is not None:
        log.info("%s: memory plan %s, peak %.1f GB", base.source.name, plan or base.plan.name, peak / 1e9)

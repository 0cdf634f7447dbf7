"""The part `kernels`: which kernel served each kind of attention layer in a real step, and what the bias costs.

The profiler tells which of torch's implementations each call of scaled_dot_product_attention took: flash, efficient,
cudnn, math, or one of the device's own; and on CUDA and ROCm the names of its kernels.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from motionbooth.bench.gpu.card import seconds_on
from motionbooth.bench.gpu.networks import Network, wan, zeroscope
from motionbooth.bench.gpu.part import Finding, attempted
from motionbooth.bench.measures import Measure
from motionbooth.bench.real_size import our_steps
from motionbooth.control.plan import StepPlan

CALL, IMPLEMENTATION, LAYER = "aten::scaled_dot_product_attention", "aten::_scaled_dot_product_", "attention layer: "
QUERY, KEY, MASK = 0, 1, 3  # their places among the arguments of CALL
ROUNDS, CALLS = 5, 10
"""Of each timing: its figure is the median of ROUNDS times so many calls."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class AttentionCall:
    """One call. `layer`: self, text or temporal, and whether a text layer had a bias. `query`, `key`: (rows, heads, n,
    d). `kernels`: their names; empty on devices whose kernels torch's profiler does not see.
    """

    layer: str
    implementation: str
    query: Shape
    key: Shape
    kernels: frozenset[str]


def bench_kernels(device: torch.device) -> Iterator[Finding]:
    """For Zeroscope's and Wan 2.1 1.3B's networks."""
    yield from attempted("zeroscope", device, lambda: network_kernels(zeroscope(device)))
    yield from attempted("wan-1.3b", device, lambda: network_kernels(wan(device)))


def network_kernels(network: Network) -> Iterator[Finding]:
    """What served each kind of layer in a controlled step, and the text layers without a bias. If its guidance takes
    one pass, all of them have one, and a step without boxes tells.
    """
    controlled = attention_calls(network, network.plan)
    calls = list(controlled)
    if not any(call.layer == "text" for call in calls):
        unboxed = attention_calls(network, replace(network.plan, boxes=None))
        calls += [call for call in unboxed if call.layer == "text"]
    calls.sort(key=_kind)
    for (layer, implementation), group in groupby(calls, _kind):
        alike = list(group)
        names = sorted({name for call in alike for name in call.kernels})
        yield Measure(f"{network.name}_{layer}_{implementation}", len(alike), "; ".join(["calls a step", *names]))
    biased = Counter((call.query, call.key) for call in controlled if call.layer == "text_with_bias")
    seconds = {shapes: bias_seconds(network, *shapes) for shapes in biased}
    with_bias, without = (sum(seconds[shapes][side] * biased[shapes] for shapes in biased) for side in (0, 1))
    yield Measure(f"{network.name}_bias_ratio", with_bias / without, "text attention alone, with the bias / without")


def _kind(call: AttentionCall) -> tuple[str, str]:
    return call.layer, call.implementation


# Which kernel


def attention_calls(network: Network, plan: StepPlan) -> list[AttentionCall]:
    """All calls of attention in one step."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler logs when it starts and stops
    activities = {
        ProfilerActivity.CPU,
        getattr(ProfilerActivity, network.base.device.type.upper(), ProfilerActivity.CPU),
    }
    with marked_layers(network.base.network), profile(activities=activities, record_shapes=True) as profiler:
        our_steps(network.base, network.step, [plan])
    return [_call(event) for event in profiler.events() or () if event.name == CALL]


@contextmanager
def marked_layers(network: nn.Module) -> Iterator[None]:
    """A context in which the profiler sees the kind of each attention layer."""
    running: list[record_function] = []
    hooks = []

    def begin(kind: str) -> None:
        running.append(record_function(LAYER + kind))
        running[-1].__enter__()

    def end() -> None:
        running.pop().__exit__(None, None, None)

    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if last in ("attn1", "attn2"):
            is_temporal = "temp_attentions" in name or name.startswith("transformer_in")
            kind = "temporal" if is_temporal else "self" if last == "attn1" else "text"
            hooks.append(module.register_forward_pre_hook(lambda *_, kind=kind: begin(kind)))
            hooks.append(module.register_forward_hook(lambda *_: end()))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _call(event: Any) -> AttentionCall:
    """From the FunctionEvent of a CALL."""
    within = event
    while within is not None and not within.name.startswith(LAYER):
        within = within.cpu_parent
    layer = "other" if within is None else within.name.removeprefix(LAYER)
    shapes = [tuple(shape) for shape in event.input_shapes]
    below = list(_below(event))
    taken = next((each.name for each in event.cpu_children if each.name.startswith(IMPLEMENTATION)), "other")
    return AttentionCall(
        f"{layer}_with_bias" if shapes[MASK] else layer,
        taken.removeprefix(IMPLEMENTATION).replace("attention_", "").removesuffix("_attention"),
        shapes[QUERY],
        shapes[KEY],
        frozenset(_short(kernel.name) for each in below for kernel in each.kernels),
    )


def _below(event: Any) -> Iterator[Any]:
    """A FunctionEvent, and those inside it."""
    yield event
    for child in event.cpu_children:
        yield from _below(child)


def _short(kernel: str) -> str:
    """A kernel's name without its template's arguments, which take lines."""
    return kernel.removeprefix("void ").partition("<")[0].partition("(")[0]


# What the bias costs


def bias_seconds(network: Network, query: Shape, key: Shape) -> tuple[float, float]:
    """The seconds of CALLS calls with a bias and without, of these shapes (rows, heads, n, d) and in the network's
    layout.
    """
    device, dtype = network.base.device, network.base.dtype

    def random(shape: Shape) -> Tensor:
        rows, heads, count, width = shape
        return torch.randn(rows, count, heads, width, device=device, dtype=dtype).transpose(1, 2)

    q, k, v = random(query), random(key), random(key)
    bias = torch.zeros(query[0], 1, query[2], key[2], device=device, dtype=dtype)

    def calls(mask: Tensor | None) -> None:
        for _ in range(CALLS):
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(1 + ROUNDS):
        for has_bias, measured in seconds.items():
            measured.append(seconds_on(device, partial(calls, bias if has_bias else None)))
    with_bias, without = (statistics.median(measured[1:]) for measured in seconds.values())
    return with_bias, without

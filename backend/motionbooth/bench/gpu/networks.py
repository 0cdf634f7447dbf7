"""The parts `zeroscope` and `wan-1.3b`: networks of the published sizes, with random weights, on the card."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from msgspec import structs
from torch import Tensor

from motionbooth.bench.diffusers_loops import unet_steps, wan_steps
from motionbooth.bench.gpu.card import peak_gb, seconds_on
from motionbooth.bench.gpu.part import Finding, attempted
from motionbooth.bench.gpu.plans import plan_measures, published_text_encoder
from motionbooth.bench.measures import Measure
from motionbooth.bench.random_wan import LATENTS as WAN_LATENTS
from motionbooth.bench.random_wan import PUBLISHED, busy_wan_plan, random_network, random_wan, wan_step
from motionbooth.bench.random_wan import TOKENS as WAN_TOKENS
from motionbooth.bench.real_size import (
    LATENTS,
    TOKENS,
    Step,
    busy_plan,
    lora_trainer,
    our_steps,
    random_base,
    random_module,
    random_step,
    random_text,
    zeroscope_unet,
)
from motionbooth.control.boxes import Grid
from motionbooth.control.plan import StepPlan
from motionbooth.generation.sampling import decode
from motionbooth.models.base import Base
from motionbooth.models.memory.configurations import PUBLISHED as CONFIGURATIONS
from motionbooth.models.memory.device import free_bytes
from motionbooth.models.memory.estimate import estimates, known_source

SECONDS = 40.0
"""For the comparison of steps, which is repeated as often as fits, at least twice."""

ROUNDS, STEPS_AT_ONCE = 5, 4
"""At most."""

SLOW_STEP = 5.0
"""Seconds of a training step that is not repeated."""

DECODED_FRAMES = 17
"""Of a clip: decoding takes as long for each latent frame. Also the length of Wan's clips in training."""

ZEROSCOPE_VAE = CONFIGURATIONS["zeroscope"]["vae"]


@dataclass(frozen=True)
class Network:
    """A base on the card, with its autoencoder and no text encoder, and what a step of it is given.

    `plain(step, count)`: so many steps of diffusers' own loop.
    """

    name: str
    base: Base
    step: Step
    plan: StepPlan
    plain: Callable[[Step, int], Tensor]
    text: Tensor
    training_frames: int


def zeroscope(
    device: torch.device,
    latents: Grid = LATENTS,
    frames: int = 24,
    dtype: torch.dtype = torch.float16,
    vae: Mapping[str, Any] = ZEROSCOPE_VAE,
    **config: Any,
) -> Network:
    """Zeroscope's UNet and autoencoder in float16; by default 24 frames of 576 x 320 pixels."""
    unet = zeroscope_unet(device.type, dtype, **config)
    base = random_base(unet, latents, frames)
    autoencoder = random_module(lambda: AutoencoderKL.from_config(dict(vae)), device.type, dtype)
    base = replace(base, vae=autoencoder, device=device, dtype=dtype)
    height, width = (cells * base.cell for cells in latents)
    base.settings = structs.replace(base.settings, height=height, width=width)
    text_width = unet.config.cross_attention_dim
    step = on_device(random_step(latents, frames, text_width), base)
    text = random_text(TOKENS.length, text_width)
    plain = partial(unet_steps, unet, base.scheduler)
    return Network("zeroscope", base, step, busy_plan(latents, frames), plain, text, frames)


def wan(
    device: torch.device,
    latents: Grid = WAN_LATENTS,
    frames: int = 81,
    vae: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] = PUBLISHED,
) -> Network:
    """Wan 2.1 T2V 1.3B's transformer in bfloat16 and autoencoder in float32; by default 81 frames of 832 x 480."""
    network = random_network(torch.bfloat16, device.type, **config)
    autoencoder = random_module(lambda: AutoencoderKLWan(**vae or {}), device.type, torch.float32)
    base = replace(random_wan(network, latents, frames), vae=autoencoder, device=device)
    step = on_device(wan_step(base), base)
    text = random_text(WAN_TOKENS.length, network.config.text_dim)
    plain = partial(wan_steps, network)
    return Network("wan_1_3b", base, step, busy_wan_plan(latents, frames), plain, text, DECODED_FRAMES)


def on_device(step: Step, base: Base) -> Step:
    return Step(
        step.latents.to(base.device, base.latent_dtype),
        step.conditional.to(base.device, base.dtype),
        step.unconditional.to(base.device, base.dtype),
    )


def bench_zeroscope(device: torch.device) -> Iterator[Finding]:
    yield from _bench("zeroscope", zeroscope, device)


def bench_wan(device: torch.device) -> Iterator[Finding]:
    yield from _bench("wan-1.3b", wan, device)


def _bench(published: str, create: Callable[[torch.device], Network], device: torch.device) -> Iterator[Finding]:
    """The network's figures, and the memory plans' with another copy of it: the first has been changed by training."""
    free = free_bytes(device.type)
    yield from bench_network(create(device))

    def plans() -> Iterator[Finding]:
        network, source = create(device), known_source(published)
        text_encoder = published_text_encoder(published)
        yield from plan_measures(network.name, network.base, text_encoder, estimates(source), free)

    yield from attempted("memory plans", device, plans)


def bench_network(network: Network) -> Iterator[Finding]:
    """A clip's steps and decoding, then a training step, for which the network is converted to float32."""
    device = network.base.device
    yield from attempted("generating", device, partial(sampling_measures, network))
    yield from attempted("training", device, partial(training_measures, network))


def sampling_measures(network: Network) -> Iterator[Finding]:
    """A controlled step and diffusers' step, in turn; decoding; and how many clips an hour follow from both."""
    name, base, device = network.name, network.base, network.base.device
    works: dict[str, Callable[[int], Any]] = {
        "ours": lambda count: our_steps(base, network.step, [network.plan] * count),
        "plain": partial(network.plain, network.step),
    }
    first = time.perf_counter()
    peaks = {kind: peak_gb(device, partial(work, 1)) for kind, work in works.items()}
    first = time.perf_counter() - first
    if peaks["ours"] is not None and peaks["plain"] is not None:
        yield Measure(f"{name}_peak_gb", peaks["ours"], "GB, a controlled step")
        yield Measure(f"{name}_memory_ratio", peaks["ours"] / peaks["plain"], "controlled / plain")
    seconds = compared(device, works, first)
    yield Measure(f"{name}_step_seconds", seconds["ours"], "s, two passes of the network")
    yield Measure(f"{name}_step_ratio", seconds["ours"] / seconds["plain"], "controlled / plain")

    steps = base.settings.num_inference_steps
    clip, whole = base.of_length(min(DECODED_FRAMES, base.settings.frames)).latent_shape, base.latent_shape
    latents = torch.randn(1, *clip, device=device, dtype=base.latent_dtype)
    peak = peak_gb(device, lambda: decode(base, latents))
    decoding = seconds_on(device, lambda: decode(base, latents)) * whole[1] / clip[1]
    yield Measure(f"{name}_decode_seconds", decoding, "s a clip")
    if peak is not None:
        yield Measure(f"{name}_decode_peak_gb", peak, "GB")
    an_hour = 3600 / (steps * seconds["ours"] + decoding)
    yield Measure(f"{name}_clips_an_hour", an_hour, f"3600 / ({steps} controlled steps + decoding)")


def compared(device: torch.device, works: Mapping[str, Callable[[int], Any]], one_each: float) -> dict[str, float]:
    """The median seconds of one step of each of `works`, which take their number of steps; measured in turn.

    `one_each`: about how many seconds one step of each takes together.
    """
    affordable = int(SECONDS / one_each)
    rounds, count = min(max(affordable, 2), ROUNDS), min(max(affordable // ROUNDS, 1), STEPS_AT_ONCE)
    seconds: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(rounds):
        for kind, work in works.items():
            seconds[kind].append(seconds_on(device, partial(work, count)) / count)
    return {kind: statistics.median(each) for kind, each in seconds.items()}


def training_measures(network: Network) -> Iterator[Finding]:
    """A training step of a LoRA with the base's own settings, on float32 weights as in a job."""
    name, device = network.name, network.base.device
    network.base.network.float()
    base = replace(network.base.of_length(network.training_frames), dtype=torch.float32)
    trainer = lora_trainer(base, network.text)
    peak = peak_gb(device, trainer.take_step)  # the optimizer allocates its state in it
    second = seconds_on(device, trainer.take_step)
    more = [seconds_on(device, trainer.take_step) for _ in range(2 if second < SLOW_STEP else 0)]
    seconds = statistics.median([second, *more])
    yield Measure(f"{name}_training_step_seconds", seconds, "s")
    if peak is not None:
        yield Measure(f"{name}_training_peak_gb", peak, "GB")

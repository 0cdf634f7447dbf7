"""Clips longer than the base's, in overlapping windows: the promises, on the tiny bases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch
from motionbooth.generation.context_windows import predict
from motionbooth.generation.sampling import (
    SamplingInputs,
    denoise,
    generate_clip,
    generate_exactly,
    in_eight_bits,
    network_calls,
    plan_shot,
)
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.progress.stages import DECODING, SAMPLING, generate_stages
from motionbooth_protocol.errors import Canceled, InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.long_shots import windows_of
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from refused import refused

pytestmark = pytest.mark.numeric

PROMPT = "a sks dog in the park"


@pytest.fixture(params=["unet", "transformer"])
def source(request: pytest.FixtureRequest) -> Source:
    return request.getfixturevalue("tiny_source" if request.param == "unet" else "wan_source")


@pytest.fixture
def base(source: Source) -> Base:
    """A base whose frames are encoded one by one, and one that encodes four together."""
    return load_base(source, device="cpu")


def long_spec(base: Base, latent_frames: int = 6, **changes: Any) -> GenerateSpec:
    frames, settings = 1 + (latent_frames - 1) * base.temporal, base.settings
    boxes = [Box(0.1 + 0.4 * f / frames, 0.2, 0.5 + 0.4 * f / frames, 0.7) for f in range(frames)]
    track = SubjectTrack("dog", "dog", list(boxes), token="sks")
    camera = CameraPath.straight(0.5, -0.25, frames)
    shot = Shot("s", 1, frames, 8, settings.width, settings.height, camera, [track])
    spec = GenerateSpec(shot, PROMPT, num_inference_steps=2, guidance_scale=1.0, long_shot="windows")
    return msgspec.structs.replace(spec, **changes)


@contextmanager
def recorded(module: torch.nn.Module) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what a module is called with."""
    shapes: list[tuple[int, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    try:
        yield shapes
    finally:
        handle.remove()


def test_a_long_shot_has_all_its_frames_and_the_network_never_sees_more_than_the_bases(base: Base) -> None:
    spec = long_spec(base)
    with recorded(base.network) as seen:
        clip = generate_clip(base, spec)
    assert clip.shape == (spec.shot.frames, base.settings.height, base.settings.width, 3)
    assert {shape[2] for shape in seen} == {base.latent_frames}
    assert not torch.equal(clip, generate_clip(base, long_spec(base, box_control=False)))


def test_a_prediction_is_the_weighted_mean_of_those_of_the_windows(base: Base) -> None:
    spec = long_spec(base)
    boxes = plan_shot(base, spec)[0].boxes
    windows = windows_of(spec.shot.frames, base.settings.frames, base.temporal)
    channels, length, *size = base.latent_shape
    latents = torch.randn(1, channels, 6, *size, generator=torch.Generator().manual_seed(0))
    text = base.embed([PROMPT]), base.embed([""]), 2.0
    base.scheduler.set_timesteps(2)
    t, done = base.scheduler.timesteps[0], list[int]()
    with torch.no_grad():
        found = predict(base, latents, t, text, boxes, windows, done.append)
        assert boxes is not None
        parts = [
            base.predict(latents[:, :, part], t, *text, boxes.during(part))
            for part in (slice(window.start, window.stop) for window in windows)
        ]
    assert done == list(range(1, len(windows)))
    for frame in range(6):
        places = [
            (min(frame - window.start, window.stop - 1 - frame) + 1, part[:, :, frame - window.start])
            for window, part in zip(windows, parts, strict=True)
            if frame in window
        ]
        mean = sum(weight * part for weight, part in places) / sum(weight for weight, _ in places)
        torch.testing.assert_close(found[:, :, frame], mean, rtol=1e-5, atol=1e-5)  # sums in another order
    assert length == len(windows[0])


def test_a_clip_that_fits_is_the_same_bits_as_without_windows(base: Base) -> None:
    spec = long_spec(base, base.latent_frames)
    assert torch.equal(
        generate_clip(base, spec), generate_clip(base, msgspec.structs.replace(spec, long_shot="spread"))
    )
    one, other = (SamplingInputs.from_prompts(base, [PROMPT], [""], [0], plan_shot(base, spec)) for _ in range(2))
    assert torch.equal(denoise(base, one), denoise(base, replace(other, windows=())))


def test_takes_of_a_long_shot_in_one_batch_are_those_of_their_seeds_alone(base: Base) -> None:
    spec = long_spec(base)
    takes = in_eight_bits(generate_exactly(base, spec, [3, 4]))
    alone = generate_clip(base, msgspec.structs.replace(spec, seed=4))
    assert (takes[1].int() - alone.int()).abs().max() <= 1  # kernels round differently for batches of another size


def test_the_progress_counts_every_window_and_a_cancellation_comes_between_two(source: Source, base: Base) -> None:
    spec, seen = long_spec(base), list[tuple[int, int]]()
    generate_clip(base, spec, lambda done, calls: seen.append((done, calls)))
    calls = network_calls(base, spec)
    assert calls == 2 * len(windows_of(spec.shot.frames, base.settings.frames, base.temporal)) > 3
    assert seen == [(done, calls) for done in range(1, calls + 1)]
    stages = {stage.name: stage.steps for stage in generate_stages(base.settings, spec, frame_step=source.frame_step)}
    assert stages[SAMPLING] == calls
    assert stages[DECODING] == spec.shot.frames

    def cancel(done: int, _: int) -> None:
        if done == 2:
            raise Canceled("enough")

    with recorded(base.network) as shapes, pytest.raises(Canceled):
        generate_clip(base, spec, cancel)
    assert len(shapes) == 2, "of two windows"


def test_the_scenery_of_a_long_clip_is_decoded_and_encoded_in_parts(tiny_single: Base) -> None:
    latents = torch.randn(4, 6, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), recorded(tiny_single.vae.decoder) as decoded, recorded(tiny_single.vae.encoder) as encoded:
        pixels = tiny_single.long_to_pixels(latents)
        again = tiny_single.long_encode(pixels)
    assert [shape[0] for shape in decoded] == [shape[0] for shape in encoded] == [4, 2]
    with torch.no_grad():
        torch.testing.assert_close(pixels, tiny_single.to_pixels(latents), rtol=1e-4, atol=1e-4)
    assert again.shape == latents.shape
    merging = msgspec.structs.replace(tiny_single.settings.control, merge_until=1.0)
    tiny_single.settings = msgspec.structs.replace(tiny_single.settings, control=merging)
    with recorded(tiny_single.vae.encoder) as encoded:
        generate_clip(tiny_single, long_spec(tiny_single))
    assert encoded
    assert max(shape[0] for shape in encoded) <= tiny_single.settings.frames


def test_frames_that_the_model_cannot_generate_are_refused(base: Base) -> None:
    own, step = base.settings.frames, base.temporal
    with refused(InvalidInput, found=long_spec(base).shot.frames, expected=own):
        generate_clip(base, long_spec(base, long_shot="spread"))
    short = long_spec(base, base.latent_frames - 1)
    with refused(InvalidInput, found=short.shot.frames, least=own, step=step):
        generate_clip(base, short)
    if step > 1:
        odd = long_spec(base).shot
        cut = msgspec.structs.replace(odd, camera=CameraPath.still(odd.frames - 1), subjects=[])
        with refused(InvalidInput, found=odd.frames - 1, least=own, step=step):
            generate_clip(base, long_spec(base, shot=cut, prompt="a park"))


def test_a_models_frame_step_is_that_of_its_autoencoder(tiny_source: Source, wan_source: Source) -> None:
    assert (tiny_source.info.frame_step, wan_source.info.frame_step) == (1, 4)


def test_each_latent_frame_is_noise_of_variance_one(base: Base) -> None:
    plans = plan_shot(base, long_spec(base))
    inputs = SamplingInputs.from_prompts(base, [PROMPT], [""], [0], plans, frames=1 + 5 * base.temporal)
    latents = inputs.latents
    assert latents.shape[2] == 6
    assert torch.allclose(latents.var(dim=(0, 1, 3, 4)), torch.tensor(1.0), atol=0.15)  # of some 1,000 values each

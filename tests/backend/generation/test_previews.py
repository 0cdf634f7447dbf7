from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from motionbooth.generation import previews
from motionbooth.generation.previews import Previewer, as_jpeg, resized_to
from motionbooth.generation.sampling import decode, generate_clip
from motionbooth.models.base import Base
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.limits import PREVIEW_BYTES
from motionbooth_protocol.motion import CameraPath, Shot

SPEC = GenerateSpec(Shot("shot", 1, 9, 24, 192, 128, CameraPath.still(4)), "a dog", model="tiny", num_inference_steps=4)


class Shown:
    """The pictures that were shown, RGB (H, W, 3)."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []

    def __call__(self, jpeg: bytes, width: int, height: int) -> None:
        assert len(jpeg) <= PREVIEW_BYTES
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert picture.shape == (height, width, 3)
        self.pictures.append(picture)


def test_the_preview_shows_first_middle_and_last_frame_of_what_is_becoming(
    tiny_single: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "COST_SHARE", 1e9)
    shown = Shown()
    clip = generate_clip(tiny_single, SPEC, on_estimate=Previewer(tiny_single, shown)).numpy()
    assert len(shown.pictures) == 4
    picture = resized_to(np.concatenate([clip[0], clip[2], clip[3]], axis=1), 3 * 256)
    shown(as_jpeg(picture), picture.shape[1], picture.shape[0])
    *_, last, finished = shown.pictures
    assert np.abs(last.astype(float) - finished).mean() < 3


def test_previews_change_nothing_of_the_clip(tiny_single: Base) -> None:
    assert torch.equal(
        generate_clip(tiny_single, SPEC, on_estimate=Previewer(tiny_single, Shown())),
        generate_clip(tiny_single, SPEC),
    )


def test_the_next_preview_waits_until_the_last_one_was_cheap(
    tiny_single: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(previews.time, "monotonic", lambda: clock[0])

    def slow_decode(base: Base, latents: torch.Tensor) -> torch.Tensor:
        clock[0] += 0.3
        return decode(base, latents)

    monkeypatch.setattr(previews, "decode", slow_decode)
    shown = Shown()
    preview = Previewer(tiny_single, shown)
    estimate = torch.zeros(1, 4, 4, 4, 4)
    for _ in range(1000):
        clock[0] += 0.1
        preview(estimate)
    assert 0.005 < 0.3 * len(shown.pictures) / clock[0] < 0.015


def test_a_large_noisy_picture_still_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (432, 768, 3), dtype=np.uint8)
    assert len(as_jpeg(noise)) <= PREVIEW_BYTES

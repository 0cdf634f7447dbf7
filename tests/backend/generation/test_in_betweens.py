"""In-betweens by a tiny network in the form in which FILM is published: TorchScript of two frames and a time."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from motionbooth.generation.finishing import FinishedFrames, Finishing
from motionbooth.generation.in_betweens import MULTIPLE, Interpolator
from motionbooth.models.sources import model_version
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import CameraPath, Shot
from msgspec.structs import replace
from refused import refused
from torch import Tensor, nn


class Blend(nn.Module):
    """Mixes two frames by the time, and refuses sides that FILM cannot take."""

    def forward(self, one: Tensor, other: Tensor, time: Tensor) -> Tensor:
        assert one.shape[2] % 64 == 0
        assert one.shape[3] % 64 == 0
        return one + time[:, :, None, None] * (other - one)


class Half(nn.Module):
    def forward(self, one: Tensor, other: Tensor, time: Tensor) -> Tensor:
        return one[:, :, ::2, ::2]


class Single(nn.Module):
    def forward(self, one: Tensor) -> Tensor:
        return one


def saved(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(network).save(str(path))
    return path


@pytest.fixture
def blend(tmp_path: Path) -> Interpolator:
    return Interpolator(saved(Blend(), tmp_path / "film net.pt"))


def test_the_frames_between_are_the_networks_and_the_models_own_stay(blend: Interpolator) -> None:
    frames = np.random.default_rng(0).random((3, 40, 70, 3), np.float32)  # no multiples of 64
    assert MULTIPLE == 64
    shown = FinishedFrames(frames, 9, Finishing(blend))
    assert len(shown) == 9
    for index, frame in enumerate(frames):
        assert shown[4 * index] is frame or np.array_equal(shown[4 * index], frame)
    np.testing.assert_allclose(shown[1], 0.75 * frames[0] + 0.25 * frames[1], atol=1e-6)
    np.testing.assert_allclose(shown[7], 0.25 * frames[1] + 0.75 * frames[2], atol=1e-6)
    assert shown[1].shape == (40, 70, 3)


def test_a_rate_that_does_not_divide_still_starts_and_ends_with_the_models_frames(blend: Interpolator) -> None:
    frames = np.linspace(0, 1, 8, dtype=np.float32)[:, None, None, None] * np.ones((1, 64, 64, 3), np.float32)
    shown = np.stack(list(FinishedFrames(frames, 24, Finishing(blend))))
    np.testing.assert_allclose(shown[:, 0, 0, 0], np.linspace(0, 1, 24), atol=1e-5)
    assert np.array_equal(shown[0], frames[0])
    assert np.array_equal(shown[-1], frames[-1])


def test_each_frame_is_made_only_when_it_is_asked_for(blend: Interpolator) -> None:
    frames = np.zeros((2, 64, 64, 3), np.float32)
    assert FinishedFrames(frames, 10**6, Finishing(blend))[500].shape == (64, 64, 3)


def test_a_file_that_is_no_interpolation_network_is_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "weights.pt"
    torch.save({"weights": torch.zeros(1)}, pickled)
    with refused(InvalidInput, path=str(pickled)):
        Interpolator(pickled)
    with refused(InvalidInput, path=str(tmp_path / "missing.pt")):
        Interpolator(tmp_path / "missing.pt")
    for network in (Half(), Single()):
        path = saved(network, tmp_path / "other.pt")
        with refused(InvalidInput, path=str(path)):
            Interpolator(path)


def test_a_network_is_loaded_once_and_again_after_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Blend(), tmp_path / "film.pt")
    monkeypatch.setenv("MOTIONBOOTH_INTERPOLATOR", str(path))
    spec = GenerateSpec(Shot("s", 1, 24, 24, 96, 64, CameraPath.still(8)), "a park")
    before = model_version("toybox")
    first = Finishing.of(spec).interpolator
    assert Finishing.of(spec).interpolator is first is not None
    assert Finishing.of(replace(spec, hold_frames=True)).interpolator is None
    os.utime(path, (1, 1))
    assert Finishing.of(spec).interpolator is not first
    assert model_version("toybox") != before, "cached results are not those of the new network"

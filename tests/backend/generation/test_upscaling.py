"""Upscaling by real architectures of spandrel, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from motionbooth.generation.finishing import FinishedFrames, Finishing
from motionbooth.generation.upscaling import MARGIN, TILE, Upscaler, spans
from motionbooth.generation.video import spread
from motionbooth_protocol.errors import InvalidInput
from refused import refused
from safetensors.torch import save_file

compact = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG", reason="spandrel is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of Real-ESRGAN's compact kind, which sees 4 pixels around each."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("upscaler") / "x2.safetensors"
    network = compact.SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def test_tiles_make_the_same_frame_as_the_whole(weights: Path) -> None:
    upscaler = Upscaler(weights)
    frame = np.random.default_rng(0).random((300, 530, 3), np.float32)
    made = upscaler.enlarged(frame)
    assert upscaler.scale == 2
    assert made.shape == (600, 1060, 3)
    assert upscaler.size_of(530, 300) == (1060, 600)
    whole = upscaler._enlarge(frame)
    np.testing.assert_allclose(made, whole, atol=1e-5)  # kernels round differently for another size
    plain = F.interpolate(torch.from_numpy(frame).permute(2, 0, 1)[None], scale_factor=2).numpy()[0].transpose(1, 2, 0)
    assert np.abs(made - plain).max() > 0.01, "the network has done something"


@pytest.mark.parametrize("length", [1, TILE, TILE + 1, 3 * TILE + 7])
def test_tiles_cover_a_side_once_and_see_beyond_their_edges(length: int) -> None:
    found = list(spans(length))
    assert [pixel for start, stop, _, _ in found for pixel in range(start, stop)] == list(range(length))
    assert max(stop - start for start, stop, _, _ in found) <= TILE
    for start, stop, seen_start, seen_stop in found:
        assert (seen_start, seen_stop) == (max(0, start - MARGIN), min(length, stop + MARGIN))


def test_a_file_that_is_no_upscaler_is_refused(tmp_path: Path, weights: Path) -> None:
    other, pickled = tmp_path / "other.safetensors", tmp_path / "x4.pth"
    save_file({"weight": torch.zeros(2)}, other)
    torch.save({"weight": torch.zeros(2)}, pickled)
    for path in (other, pickled, tmp_path / "missing.safetensors"):
        with refused(InvalidInput, path=str(path)):
            Upscaler(path)
    with refused(InvalidInput, width=10000, height=1000):
        Upscaler(weights).size_of(5000, 500)


def test_a_frame_that_is_held_is_enlarged_once(weights: Path) -> None:
    upscaler = Upscaler(weights)
    calls: list[torch.Size] = []
    upscaler._network.model.register_forward_hook(lambda _, given, __: calls.append(given[0].shape))
    frames = FinishedFrames(np.zeros((3, 8, 12, 3), np.float32), 30, Finishing(upscaler=upscaler))
    assert [frames[index].shape for index in spread(len(frames), 30)] == [(16, 24, 3)] * 30
    assert len(calls) == 3

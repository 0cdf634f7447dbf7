"""BiRefNet from its published layout, with a network of one layer that finds red: hints, and files that are not what
they should be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from motionbooth.pictures.birefnet import MEAN, STD, WEIGHTS, BirefnetFinder, load_birefnet
from motionbooth.pictures.finders import MaskFinders
from motionbooth.pictures.images import Rgb
from motionbooth.pictures.masks import Hint, find_mask
from motionbooth.pictures.sam import Checkpoint
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from onnx import TensorProto, helper, numpy_helper
from refused import refused

SIDE = 64


def write_network(folder: Path, shape: Sequence[int | str] = (1, 3, SIDE, SIDE)) -> Path:
    """A network with the names of the published one, whose logits are red - green - 0.5 of colors from 0 to 1."""
    weights = np.array([STD[0], -STD[1], 0], np.float32).reshape(1, 3, 1, 1)
    bias = np.array([MEAN[0] - MEAN[1] - 0.5], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input_image", "weights", "bias"], ["output_image"])],
        "red",
        [helper.make_tensor_value_info("input_image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output_image", TensorProto.FLOAT, (shape[0], 1, *shape[2:]))],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (folder / WEIGHTS).parent.mkdir(parents=True)
    onnx.save(model, folder / WEIGHTS)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_network(tmp_path / "birefnet")


def two_red_squares() -> Rgb:
    """320 x 160 pixels, blue, with red squares of 40 pixels in the left half and of 80 in the right half."""
    picture = np.full((160, 320, 3), (20, 30, 200), np.uint8)
    picture[60:100, 60:100] = picture[40:120, 200:280] = (230, 20, 20)
    return picture


def share(mask: np.ndarray, rows: slice, columns: slice) -> float:
    """The share of the mask's pixels that are in a part of the picture."""
    return float(mask[rows, columns].sum() / mask.sum())


def test_what_stands_out_is_found_at_the_pictures_size(folder: Path) -> None:
    mask = BirefnetFinder(folder)(two_red_squares(), Hint())
    assert mask.shape == (160, 320)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.sum() == pytest.approx(40 * 40 + 80 * 80, rel=0.1)
    red = (two_red_squares()[..., 0] > 128).astype(np.float32)
    assert np.abs(mask - red).mean() < 0.02, "at the edges"


def test_with_a_box_only_its_surroundings_are_seen(folder: Path) -> None:
    mask = BirefnetFinder(folder)(two_red_squares(), Hint(box=Box(0.15, 0.3, 0.35, 0.7)))
    assert share(mask, slice(58, 102), slice(58, 102)) == 1
    assert mask.sum() == pytest.approx(40 * 40, rel=0.1)


def test_with_a_point_the_part_at_the_point_is_the_subject(folder: Path) -> None:
    mask = BirefnetFinder(folder)(two_red_squares(), Hint(point=(0.25, 0.5)))
    assert share(mask, slice(None), slice(0, 160)) == 1
    missed = BirefnetFinder(folder)(two_red_squares(), Hint(point=(0.5, 0.1)))
    assert missed.sum() == pytest.approx(40 * 40 + 80 * 80, rel=0.1), "which is then doubted"


def test_nothing_that_stands_out_is_an_empty_mask(folder: Path) -> None:
    assert not BirefnetFinder(folder)(np.full((50, 80, 3), 90, np.uint8), Hint()).any()
    outside = Hint(box=Box(1.2, 0.1, 1.6, 0.4))
    assert not BirefnetFinder(folder)(two_red_squares(), outside).any()


def test_without_its_library_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InvalidInput, match=r"pip install motionbooth\[birefnet\]"):
        load_birefnet(folder)


@pytest.mark.parametrize("shape", [(1, 1, SIDE, SIDE), (1, 3, "height", "width")])
def test_another_network_is_refused(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    folder = tmp_path / "other"
    (folder / WEIGHTS).parent.mkdir(parents=True)
    node = helper.make_node("Identity", ["a"], ["b"])
    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab")
    graph = helper.make_graph([node], "other", [a], [b])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / WEIGHTS)
    with refused(InvalidInput, path=str(folder / WEIGHTS)):
        load_birefnet(folder)


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_a_file_that_is_no_network_is_refused(folder: Path, content: bytes | None) -> None:
    (folder / WEIGHTS).unlink()
    if content is not None:
        (folder / WEIGHTS).write_bytes(content)
    with refused(InvalidInput, path=str(folder / WEIGHTS)):
        load_birefnet(folder)


def test_a_hint_is_segment_anythings_and_the_rest_birefnets(folder: Path, tmp_path: Path) -> None:
    assert MaskFinders().finder() is None, "GrabCut"
    finder = MaskFinders(Checkpoint(tmp_path / "nowhere.pth"), folder).finder()
    assert finder is not None
    picture = two_red_squares()
    assert np.array_equal(finder(picture, Hint()), BirefnetFinder(folder)(picture, Hint()))
    with refused(InvalidInput, checkpoint=str(tmp_path / "nowhere.pth")):
        finder(picture, Hint(point=(0.25, 0.5)))
    alone = MaskFinders(birefnet=folder).finder()
    assert alone is not None
    assert not np.array_equal(alone(picture, Hint(point=(0.25, 0.5))), find_mask(picture, Hint(point=(0.25, 0.5))))

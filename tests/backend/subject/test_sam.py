"""Segment Anything: the published layout is read from the weights alone; prompts; files that are not what they should.

The network is a tiny one with random weights, so nothing is said of how well it finds.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from motionbooth.subject.masks import Hint, picture_with_mask
from motionbooth.subject.sam import PUBLISHED, Checkpoint, SamFinder, WhenNeeded, build_sam, sam_finder
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from PIL import Image
from torch import nn

pytest.importorskip("segment_anything", reason="needs the library of Segment Anything: pip install 'motionbooth[sam]'")
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer


def tiny_sam() -> nn.Module:
    """Built by the library's own classes as its registry builds the published sizes."""
    torch.manual_seed(0)
    width, side = 32, 256
    return Sam(
        ImageEncoderViT(
            img_size=side, embed_dim=48, depth=3, num_heads=4, mlp_ratio=4, out_chans=width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=14, global_attn_indexes=(1,),
        ),
        PromptEncoder(
            embed_dim=width, image_embedding_size=(16, 16), input_image_size=(side, side), mask_in_chans=16
        ),
        MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=64, num_heads=8),
            transformer_dim=width, iou_head_depth=3, iou_head_hidden_dim=24,
        ),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam") / "tiny.pth"
    torch.save(tiny_sam().state_dict(), path)
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["vit_b", "vit_l", "vit_h"])
def test_the_published_sizes_are_read_from_the_weights(kind: str) -> None:
    with torch.device("meta"):
        published = sam_model_registry[kind]()
        built = build_sam(published.state_dict())
    assert {name: value.shape for name, value in built.state_dict().items()} == {
        name: value.shape for name, value in published.state_dict().items()
    }
    blocks, expected = built.image_encoder.blocks, published.image_encoder.blocks
    assert [block.window_size for block in blocks] == [block.window_size for block in expected]
    assert [block.attn.num_heads for block in blocks] == [block.attn.num_heads for block in expected]


@pytest.mark.parametrize("size", [(200, 140), (90, 400)])
@pytest.mark.parametrize("hint", [Hint(), Hint(box=Box(0.2, 0.3, 0.6, 0.9)), Hint(point=(0.4, 0.4))])
def test_the_mask_is_the_best_of_the_predictors_own(checkpoint: Path, size: tuple[int, int], hint: Hint) -> None:
    from segment_anything import SamPredictor

    rgb = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    if max(size) > 256:
        mask = sam_finder(Checkpoint(checkpoint, sha256_of(checkpoint)))(rgb, hint)
        assert mask.shape == (size[1], size[0])
        assert set(np.unique(mask)) <= {0, 1}
        return
    predictor = SamPredictor(tiny_sam())
    predictor.set_image(rgb)
    if hint.box is not None:
        masks, scores, _ = predictor.predict(box=np.array([40, 42, 120, 126]), multimask_output=False)
    elif hint.point is not None:
        masks, scores, _ = predictor.predict(np.array([[80, 56]]), np.array([1]))
    else:
        corners = [[100, 70], [4, 2.8], [4, 137.2], [196, 2.8], [196, 137.2]]
        masks, scores, _ = predictor.predict(np.array(corners), np.array([1, 0, 0, 0, 0]))
    found = sam_finder(Checkpoint(checkpoint, sha256_of(checkpoint)))(rgb, hint)
    assert np.array_equal(found, masks[np.argmax(scores)])


def test_a_picture_without_mask_or_alpha_is_given_to_it(checkpoint: Path, tmp_path: Path) -> None:
    Image.effect_noise((120, 100), 90).convert("RGB").save(tmp_path / "p.png")
    asked: list[Hint] = []

    def finder(rgb: np.ndarray, hint: Hint) -> np.ndarray:
        asked.append(hint)
        mask = np.zeros(rgb.shape[:2], np.float32)
        mask[20:60, 30:70] = 1
        return mask

    hint = Hint(point=(0.5, 0.4))
    _, mask = picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1", hint, finder)
    assert asked == [hint]
    assert mask.sum() == 1600


def test_a_file_that_is_neither_published_nor_vouched_for_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InvalidInput, match=r"which is not that of sam_vit_b_01ec64\.pth"):
        sam_finder(Checkpoint(checkpoint))
    with pytest.raises(InvalidInput, match="which is not the sha256 that was given"):
        sam_finder(Checkpoint(checkpoint, PUBLISHED["sam_vit_b_01ec64.pth"]))
    assert isinstance(sam_finder(Checkpoint(checkpoint, sha256_of(checkpoint).upper())), SamFinder)


def test_a_missing_file_is_said_with_the_command_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"curl -LO https://.*/sam_vit_b_01ec64\.pth"):
        sam_finder(Checkpoint(tmp_path / "sam.pth"))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04nonsense"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sam.pth").write_bytes(content)
    with pytest.raises(InvalidInput, match="not a checkpoint of Segment Anything"):
        sam_finder(Checkpoint(tmp_path / "sam.pth", hashlib.sha256(content).hexdigest()))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "sam.pth")
    with pytest.raises(InvalidInput, match="not a checkpoint of Segment Anything"):
        sam_finder(Checkpoint(tmp_path / "sam.pth", sha256_of(tmp_path / "sam.pth")))


def test_nothing_is_loaded_before_a_picture_needs_it(checkpoint: Path, tmp_path: Path) -> None:
    finder = WhenNeeded(Checkpoint(tmp_path / "sam.pth", sha256_of(checkpoint)))
    (tmp_path / "sam.pth").write_bytes(checkpoint.read_bytes())
    rgb = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    mask = finder(rgb, Hint())
    (tmp_path / "sam.pth").unlink()
    assert np.array_equal(finder(rgb, Hint()), mask)

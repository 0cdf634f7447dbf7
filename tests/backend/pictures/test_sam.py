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
from motionbooth.pictures.masks import Hint, picture_with_mask
from motionbooth.pictures.sam import PUBLISHED, Checkpoint, SamFinder, build_sam, load_sam
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from PIL import Image
from refused import refused
from torch import nn
from transformers import SamModel

pytest.importorskip("segment_anything", reason="compares with Meta's own library: pip install 'motionbooth[dev]'")
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
    built = build_sam(published.state_dict())  # accounts for every weight
    parameters = sum(value.numel() for value in published.state_dict().values())
    # transformers keeps the positional embedding twice
    twice = built.state_dict()["shared_image_embedding.positional_embedding"].numel()
    assert sum(value.numel() for value in built.state_dict().values()) == parameters + twice
    layers, blocks = built.vision_encoder.layers, published.image_encoder.blocks
    assert [layer.window_size for layer in layers] == [block.window_size for block in blocks]
    assert [layer.attn.num_attention_heads for layer in layers] == [block.attn.num_heads for block in blocks]


@torch.no_grad()
def test_transformers_network_computes_what_metas_does() -> None:
    sam = tiny_sam()
    for name, parameter in sam.named_parameters():  # zeros (position biases) and ones would hide what is exchanged
        torch.nn.init.normal_(parameter, std=0.3 if "rel_pos" in name or "norm" in name else 0.1)
    ours = build_sam(sam.state_dict())
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    points, labels = torch.tensor([[[80.0, 56.0], [10.0, 20.0]]]), torch.tensor([[1, 0]])
    embedding = sam.image_encoder(pixels)
    for boxes in (None, torch.tensor([[40.0, 42.0, 120.0, 126.0]])):
        sparse, dense = sam.prompt_encoder(points=(points, labels), boxes=boxes, masks=None)
        masks, scores = sam.mask_decoder(
            image_embeddings=embedding, image_pe=sam.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense, multimask_output=True,
        )  # fmt: skip
        asked = {"input_points": points[None], "input_labels": labels[None]}
        if boxes is not None:
            asked["input_boxes"] = boxes[None]
        found = ours(pixels, **asked, multimask_output=True)
        # Some 30 layers in float32, whose sums the two libraries take in other orders.
        torch.testing.assert_close(found.pred_masks[0], masks, rtol=1e-3, atol=1e-4 * float(masks.abs().max()))
        torch.testing.assert_close(found.iou_scores[0], scores, rtol=1e-3, atol=1e-4 * float(scores.abs().max()))


def test_transformers_own_layout_finds_the_same(checkpoint: Path, tmp_path: Path) -> None:
    build_sam(torch.load(checkpoint, weights_only=True)).save_pretrained(tmp_path / "sam")
    rgb = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    from_folder = SamFinder(Checkpoint(tmp_path / "sam"))(rgb, Hint())
    assert np.array_equal(from_folder, SamFinder(Checkpoint(checkpoint, sha256_of(checkpoint)))(rgb, Hint()))
    weights = tmp_path / "sam" / "model.safetensors"
    assert isinstance(load_sam(Checkpoint(tmp_path / "sam", sha256_of(weights))), SamModel)
    with refused(InvalidInput, found=..., expected="the sha256 that was given"):
        load_sam(Checkpoint(tmp_path / "sam", "0" * 64))
    weights.write_bytes(weights.read_bytes()[:1000])
    with refused(InvalidInput, path=str(tmp_path / "sam")):
        load_sam(Checkpoint(tmp_path / "sam"))
    weights.unlink()
    with refused(InvalidInput, folder=str(tmp_path / "sam")):
        load_sam(Checkpoint(tmp_path / "sam"))


@pytest.mark.parametrize("size", [(200, 140), (90, 400)])
@pytest.mark.parametrize("hint", [Hint(), Hint(box=Box(0.2, 0.3, 0.6, 0.9)), Hint(point=(0.4, 0.4))])
def test_the_mask_is_the_best_of_the_predictors_own(checkpoint: Path, size: tuple[int, int], hint: Hint) -> None:
    from segment_anything import SamPredictor

    rgb = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    if max(size) > 256:
        mask = SamFinder(Checkpoint(checkpoint, sha256_of(checkpoint)))(rgb, hint)
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
    found = SamFinder(Checkpoint(checkpoint, sha256_of(checkpoint)))(rgb, hint)
    # A logit that is nearly 0 may fall on the other side of it: the two libraries add in other orders.
    assert (found == masks[np.argmax(scores)]).mean() > 0.999


def test_a_picture_without_mask_or_alpha_is_given_to_it(checkpoint: Path, tmp_path: Path) -> None:
    Image.effect_noise((120, 100), 90).convert("RGB").save(tmp_path / "p.png")
    asked: list[Hint] = []

    def finder(rgb: np.ndarray, hint: Hint) -> np.ndarray:
        asked.append(hint)
        mask = np.zeros(rgb.shape[:2], np.float32)
        mask[20:60, 30:70] = 1
        return mask

    hint = Hint(point=(0.5, 0.4))
    _, mask, _ = picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1", hint, finder)
    assert asked == [hint]
    assert mask.sum() == 1600


def test_a_file_that_is_neither_published_nor_vouched_for_is_refused(checkpoint: Path) -> None:
    with refused(InvalidInput, expected=f"that of {', '.join(PUBLISHED)}"):
        load_sam(Checkpoint(checkpoint))
    with refused(InvalidInput, found=..., expected="the sha256 that was given"):
        load_sam(Checkpoint(checkpoint, PUBLISHED["sam_vit_b_01ec64.pth"]))
    assert isinstance(load_sam(Checkpoint(checkpoint, sha256_of(checkpoint).upper())), SamModel)


def test_a_missing_file_is_said_with_the_command_to_fetch_it(tmp_path: Path) -> None:
    with refused(InvalidInput, checkpoint=str(tmp_path / "sam.pth")):
        load_sam(Checkpoint(tmp_path / "sam.pth"))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04nonsense"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sam.pth").write_bytes(content)
    with refused(InvalidInput, path=str(tmp_path / "sam.pth")):
        load_sam(Checkpoint(tmp_path / "sam.pth", hashlib.sha256(content).hexdigest()))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "sam.pth")
    with refused(InvalidInput, path=str(tmp_path / "sam.pth")):
        load_sam(Checkpoint(tmp_path / "sam.pth", sha256_of(tmp_path / "sam.pth")))


def test_nothing_is_loaded_before_a_picture_needs_it(checkpoint: Path, tmp_path: Path) -> None:
    finder = SamFinder(Checkpoint(tmp_path / "sam.pth", sha256_of(checkpoint)))
    (tmp_path / "sam.pth").write_bytes(checkpoint.read_bytes())
    rgb = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    mask = finder(rgb, Hint())
    (tmp_path / "sam.pth").unlink()
    assert np.array_equal(finder(rgb, Hint()), mask)

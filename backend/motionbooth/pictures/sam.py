"""Finds the subject with Segment Anything (Kirillov et al., 2023), from a checkpoint that the user has downloaded.

The network is transformers' SamModel. Its weights are in that library's layout (a folder with config.json and
model.safetensors) or in Meta's (a .pth file), whose parameters are renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from motionbooth_protocol.errors import InvalidInput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from motionbooth.pictures.images import Mask, Rgb
from motionbooth.pictures.masks import Hint

PUBLISHED = {
    "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
}
ENVIRONMENT = "MOTIONBOOTH_SAM"

PATCH_PX = 16
DECODER_HEADS = 8
PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)
CORNER = 0.02  # distance of the background points from the corners, in shares of the sides, without a hint


class SamFinder:
    """A Finder, which loads its weights for the first picture.

    Without a hint, the subject is assumed to be at the center, and the corners to be background.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    @cached_property
    def _sam(self) -> SamModel:
        return load_sam(self._checkpoint)

    @property
    def _side(self) -> int:
        """Width and height of the network's input in pixels."""
        return self._sam.config.vision_config.image_size

    @torch.no_grad()
    def __call__(self, rgb: Rgb, hint: Hint) -> Mask:
        height, width = rgb.shape[:2]
        scale = min(1.0, self._side / max(height, width))
        if scale * min(height, width) < 1:
            return np.zeros((height, width), dtype=np.float32)  # as thin as a hair
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        pixels = self._pixels(small)
        prompt = {name: value.to(self._sam.device) for name, value in _prompt(hint, pixels.shape[:2]).items()}
        # A box is unambiguous: one mask. A point is not: three masks, of which the one with the best score is taken.
        found = self._sam(self._padded(pixels), **prompt, multimask_output=hint.box is None)
        best = found.pred_masks[0, 0, found.iou_scores[0, 0].argmax()]
        mask = self._at_size(best, pixels.shape[:2], small.shape[:2])
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)

    def _pixels(self, picture: Rgb) -> NDArray[np.float32]:
        """The picture at the network's input size, normalized."""
        scale = self._side / max(picture.shape[:2])
        size = int(picture.shape[1] * scale + 0.5), int(picture.shape[0] * scale + 0.5)
        resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
        return (resized - PIXEL_MEAN) / PIXEL_STD

    def _padded(self, pixels: NDArray[np.float32]) -> Tensor:
        """(1, 3, side, side), padded with zeros below and to the right."""
        height, width = pixels.shape[:2]
        chosen = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._sam.device)
        return F.pad(chosen, (0, self._side - width, 0, self._side - height))

    def _at_size(self, logits: Tensor, padded_from: tuple[int, ...], size: tuple[int, ...]) -> NDArray[np.uint8]:
        """The network's low-resolution logits (h, w) as a mask of the picture, 0 or 1."""
        full = F.interpolate(logits[None, None], (self._side, self._side), mode="bilinear", align_corners=False)
        part = full[..., : padded_from[0], : padded_from[1]]
        return (F.interpolate(part, size, mode="bilinear", align_corners=False)[0, 0] > 0).byte().cpu().numpy()


def _prompt(hint: Hint, size: tuple[int, ...]) -> dict[str, Tensor]:
    """The network's prompt arguments, in pixels of a picture of this size (height, width)."""
    pixels = torch.tensor([size[1], size[0]])
    points, labels = [hint.point] if hint.point else [], [1] if hint.point else []
    if hint.box is None and hint.point is None:
        points = [(0.5, 0.5), *((x, y) for x in (CORNER, 1 - CORNER) for y in (CORNER, 1 - CORNER))]
        labels = [1, 0, 0, 0, 0]
    prompt: dict[str, Tensor] = {}
    if points:
        prompt |= {
            "input_points": (torch.tensor(points) * pixels)[None, None],
            "input_labels": torch.tensor([[labels]]),
        }
    if hint.box is not None:
        prompt["input_boxes"] = (torch.tensor(hint.box.as_tuple()) * pixels.repeat(2))[None, None]
    return prompt


@dataclass(frozen=True)
class Checkpoint:
    """Weights of Segment Anything."""

    path: Path
    """A file in Meta's layout, or a folder in transformers' layout."""
    sha256: str | None = None
    """The expected sha256. By default a file must be one of PUBLISHED; a folder is not checked, as safetensors contain
    no code."""


def load_sam(checkpoint: Checkpoint) -> SamModel:
    """Load a checkpoint. Raises InvalidInput as `check_checkpoint` does, and for other contents."""
    check_checkpoint(checkpoint)
    path = checkpoint.path
    try:
        if path.is_dir():
            sam = SamModel.from_pretrained(path, use_safetensors=True, local_files_only=True)
        else:
            sam = build_sam(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # corrupt weights make the libraries raise almost anything
        raise InvalidInput("{path} is not a checkpoint of Segment Anything. Fetch it again.", path=path) from error
    return sam.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Raises InvalidInput if a file is missing or its sha256 is wrong."""
    if not checkpoint.path.is_dir():
        _check_file(checkpoint.path, checkpoint.sha256)
        return
    weights = checkpoint.path / "model.safetensors"
    if not (checkpoint.path / "config.json").is_file() or not weights.is_file():
        raise InvalidInput(
            "The folder {folder} has no Segment Anything in transformers' layout: it needs config.json and "
            "model.safetensors, as from motionbooth models get sam.",
            folder=checkpoint.path,
        )
    if checkpoint.sha256:
        _check_file(weights, checkpoint.sha256)


def chosen_checkpoint(fetched: Path | None) -> Checkpoint | None:
    """The checkpoint named by the environment variable MOTIONBOOTH_SAM, or else the one in `fetched`, if any."""
    named = os.environ.get(ENVIRONMENT)
    path = Path(named) if named else fetched
    return None if path is None else Checkpoint(path)


def _check_file(checkpoint: Path, sha256: str | None) -> None:
    if not checkpoint.is_file():
        raise InvalidInput(
            "There is no checkpoint of Segment Anything at {checkpoint}. Correct the path, or name none: then the one "
            "that motionbooth models get sam fetches is used, or else GrabCut.",
            checkpoint=checkpoint,
        )
    with checkpoint.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = {sha256.lower()} if sha256 else set(PUBLISHED.values())
    if found not in wanted:
        expected = "the sha256 that was given" if sha256 else f"that of {', '.join(PUBLISHED)}"
        raise InvalidInput(
            "{checkpoint} has the sha256 {found}, which is not {expected}: it is corrupt or another file. Fetch it "
            "again, or give its sha256 if it is the right one.",
            checkpoint=checkpoint,
            found=found,
            expected=expected,
        )


_OF_THREE = ("proj_in.", "layers.0.", "proj_out.")  # the layers of a perceptron; all published ones have three
Replacement = str | Callable[[re.Match[str]], str]
# Regular expressions of Meta's parameter names, and transformers' names, in the order of their replacement.
NAMES: list[tuple[str, Replacement]] = [
    (r"^image_encoder\.", "vision_encoder."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"neck\.(0|2)\.", lambda found: f"neck.conv{int(found[1]) // 2 + 1}."),
    (r"neck\.(1|3)\.", lambda found: f"neck.layer_norm{int(found[1]) // 2 + 1}."),
    (r"mask_downscaling\.(0|3|6)\.", lambda found: f"mask_embed.conv{int(found[1]) // 3 + 1}."),
    (r"mask_downscaling\.(1|4)\.", lambda found: f"mask_embed.layer_norm{int(found[1]) // 3 + 1}."),
    (r"point_embeddings\.", "point_embed."),
    (r"output_upscaling\.(0|3)\.", lambda found: f"upscale_conv{int(found[1]) // 3 + 1}."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"((?:mlps\.\d|iou_prediction_head)\.)layers\.(\d)\.", lambda found: found[1] + _OF_THREE[int(found[2])]),
]


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Meta's weights under transformers' parameter names."""

    def name(old: str) -> str:
        for pattern, new in NAMES:
            old = re.sub(pattern, new, old)
        return old

    weights = {name(old): value for old, value in state.items()}
    shared = weights["shared_image_embedding.positional_embedding"]
    return weights | {"prompt_encoder.shared_embedding.positional_embedding": shared}


def build_sam(state: Mapping[str, Tensor]) -> SamModel:
    """The network with these weights in Meta's layout; all its sizes are read from their shapes.

    Raises KeyError or RuntimeError for other weights.
    """
    weights = renamed(state)
    width = weights["prompt_encoder.no_mask_embed.weight"].shape[1]
    side = weights["vision_encoder.pos_embed"].shape[1] * PATCH_PX
    vision = _vision_config(weights)
    prompt = SamPromptEncoderConfig(
        hidden_size=width,
        image_size=side,
        mask_input_channels=weights["prompt_encoder.mask_embed.conv2.weight"].shape[0],
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=width,
        mlp_dim=weights["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        num_hidden_layers=_count(weights, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        num_attention_heads=DECODER_HEADS,
        num_multimask_outputs=weights["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        iou_head_hidden_dim=weights["mask_decoder.iou_prediction_head.proj_in.weight"].shape[0],
        layer_norm_eps=1e-5,  # Meta's decoder has torch's own
    )
    config = SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    with torch.device("meta"):
        sam = SamModel(config)
    sam.load_state_dict(weights, assign=True)
    return sam.eval()


def _vision_config(weights: Mapping[str, Tensor]) -> SamVisionConfig:
    _, grid, _, width = weights["vision_encoder.pos_embed"].shape
    depth = _count(weights, r"vision_encoder\.layers\.(\d+)\.")
    # A window of n cells has 2n - 1 relative positions; a layer whose window is the whole picture is a global one.
    windows = [(weights[f"vision_encoder.layers.{k}.attn.rel_pos_h"].shape[0] + 1) // 2 for k in range(depth)]
    return SamVisionConfig(
        hidden_size=width,
        output_channels=weights["vision_encoder.neck.conv1.weight"].shape[0],
        num_hidden_layers=depth,
        num_attention_heads=width // weights["vision_encoder.layers.0.attn.rel_pos_h"].shape[1],
        image_size=grid * PATCH_PX,
        patch_size=PATCH_PX,
        mlp_dim=weights["vision_encoder.layers.0.mlp.lin1.weight"].shape[0],
        window_size=min(windows),
        global_attn_indexes=[k for k, window in enumerate(windows) if window == grid],
        num_pos_feats=weights["shared_image_embedding.positional_embedding"].shape[1],
    )


def _count(weights: Mapping[str, Tensor], numbered: str) -> int:
    return 1 + max(int(match[1]) for match in map(re.compile(numbered).match, weights) if match)

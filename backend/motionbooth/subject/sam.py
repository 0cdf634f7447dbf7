"""Finding the subject with Segment Anything (Kirillov et al., 2023), from a checkpoint that the user has fetched."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from torch import Tensor, nn

from .images import Mask, Rgb
from .masks import Hint

PUBLISHED = {
    "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
}
FETCH_FROM = "https://dl.fbaipublicfiles.com/segment_anything/"
ENVIRONMENT = "MOTIONBOOTH_SAM"

PATCH_PX = 16
DECODER_HEADS = 8
PIXEL_MEAN, PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CORNER = 0.02  # of the sides: places that are taken for background where nothing is known of the subject


class SamFinder:
    """A Finder. Where there is no hint, the subject is taken to be in the middle, and the corners not to be of it."""

    def __init__(self, sam: Any) -> None:
        from segment_anything import SamPredictor

        self._predictor = SamPredictor(sam)
        self._side = sam.image_encoder.img_size

    def __call__(self, rgb: Rgb, hint: Hint) -> Mask:
        height, width = rgb.shape[:2]
        scale = min(1.0, self._side / max(height, width))
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._predictor.set_image(small)
        # A box is plain enough for one answer; of what a point may mean there are three, best ones first by score.
        masks, scores, _ = self._predictor.predict(**_prompt(hint, small), multimask_output=hint.box is None)
        best = masks[int(np.argmax(scores))].astype(np.uint8)
        return cv2.resize(best, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)


def _prompt(hint: Hint, picture: Rgb) -> dict[str, np.ndarray]:
    """The predictor's arguments, in pixels of the picture."""
    size = np.array([picture.shape[1], picture.shape[0]])
    points, labels = [hint.point] if hint.point else [], [1] if hint.point else []
    if hint.box is None and hint.point is None:
        points = [(0.5, 0.5), *((x, y) for x in (CORNER, 1 - CORNER) for y in (CORNER, 1 - CORNER))]
        labels = [1, 0, 0, 0, 0]
    prompt: dict[str, np.ndarray] = {}
    if points:
        prompt |= {"point_coords": np.array(points) * size, "point_labels": np.array(labels)}
    if hint.box is not None:
        prompt["box"] = np.array(hint.box.as_tuple()) * np.tile(size, 2)
    return prompt


@dataclass(frozen=True)
class Checkpoint:
    """One of the published files, or another of the same layout whose `sha256` is given."""

    path: Path
    sha256: str | None = None


class WhenNeeded:
    """A Finder that is made for the first picture without a mask: it is large, and takes a while."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._made: SamFinder | None = None

    def __call__(self, rgb: Rgb, hint: Hint) -> Mask:
        if self._made is None:
            self._made = sam_finder(self._checkpoint)
        return self._made(rgb, hint)


def sam_finder(checkpoint: Checkpoint) -> SamFinder:
    """Raises InvalidInput as `check_checkpoint` does, and where the file is something else."""
    check_checkpoint(checkpoint)
    try:
        sam = build_sam(torch.load(checkpoint.path, map_location="cpu", weights_only=True))
    except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InvalidInput(f"{checkpoint.path} is not a checkpoint of Segment Anything. Fetch it again.") from error
    return SamFinder(sam.to("cuda" if torch.cuda.is_available() else "cpu"))


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Raises InvalidInput where the library or the file is missing, or the file's sha256 is another."""
    try:
        import segment_anything  # noqa: F401
    except ImportError as error:
        raise InvalidInput(
            "Finding subjects with Segment Anything needs its library: pip install 'motionbooth[sam]'. Or give masks, "
            "or pictures with alpha, or leave the checkpoint out: then GrabCut finds the subject."
        ) from error
    _check_file(checkpoint.path, checkpoint.sha256)


def chosen_checkpoint() -> Checkpoint | None:
    """The file that this machine's owner has named in MOTIONBOOTH_SAM, if any."""
    named = os.environ.get(ENVIRONMENT)
    return Checkpoint(Path(named)) if named else None


def _check_file(checkpoint: Path, sha256: str | None) -> None:
    if not checkpoint.is_file():
        raise InvalidInput(
            f"There is no checkpoint of Segment Anything at {checkpoint}. Fetch one, for instance "
            f"curl -LO {FETCH_FROM}{next(iter(PUBLISHED))}, and name it; or leave it out, then GrabCut finds the "
            "subject."
        )
    with checkpoint.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = {sha256.lower()} if sha256 else set(PUBLISHED.values())
    if found not in wanted:
        expected = "the sha256 that was given" if sha256 else f"that of {', '.join(PUBLISHED)}"
        raise InvalidInput(
            f"{checkpoint} has the sha256 {found}, which is not {expected}: it is damaged or another file. Fetch it "
            "again, or give its sha256 if it is meant."
        )


def build_sam(state: dict[str, Tensor]) -> nn.Module:
    """The network that these weights are of: all its sizes can be read from their shapes.

    Raises KeyError or RuntimeError for other weights. (The library's own constructors know three sizes only, and load
    files with pickle.)
    """
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    width = state["prompt_encoder.no_mask_embed.weight"].shape[1]
    grid = state["image_encoder.pos_embed"].shape[1]
    sam = Sam(
        image_encoder=_image_encoder(state),
        prompt_encoder=PromptEncoder(
            embed_dim=width,
            image_embedding_size=(grid, grid),
            input_image_size=(grid * PATCH_PX, grid * PATCH_PX),
            mask_in_chans=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            transformer=TwoWayTransformer(
                depth=_count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
                embedding_dim=width,
                mlp_dim=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
                num_heads=DECODER_HEADS,
            ),
            transformer_dim=width,
            iou_head_depth=_count(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
            iou_head_hidden_dim=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
        ),
        pixel_mean=PIXEL_MEAN,
        pixel_std=PIXEL_STD,
    )
    sam.load_state_dict(state)
    return sam.eval()


def _image_encoder(state: dict[str, Tensor]) -> nn.Module:
    from segment_anything.modeling import ImageEncoderViT

    _, grid, _, width = state["image_encoder.pos_embed"].shape
    depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
    # Relative positions in a window of n cells are 2n - 1; a block whose window is the whole picture is a global one.
    windows = [(state[f"image_encoder.blocks.{k}.attn.rel_pos_h"].shape[0] + 1) // 2 for k in range(depth)]
    return ImageEncoderViT(
        img_size=grid * PATCH_PX,
        patch_size=PATCH_PX,
        embed_dim=width,
        depth=depth,
        num_heads=width // state["image_encoder.blocks.0.attn.rel_pos_h"].shape[1],
        mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width,
        out_chans=state["image_encoder.neck.0.weight"].shape[0],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=min(windows),
        global_attn_indexes=tuple(k for k, window in enumerate(windows) if window == grid),
    )


def _count(state: dict[str, Tensor], numbered: str) -> int:
    return 1 + max(int(match[1]) for match in map(re.compile(numbered).match, state) if match)

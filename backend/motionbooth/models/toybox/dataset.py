"""Drawn clips as tensors, drawn once and kept in a file: what the training stages sample from."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from motionbooth.control.boxes import BoxControl
from motionbooth.control.prompt import PromptTokens, prompt_tokens
from motionbooth.models.toybox.autoencoder import FACTOR, latent_coverage, latents_of_frames
from motionbooth.models.toybox.draw import FRAMES, draw_clip, random_scene


@dataclass(frozen=True)
class Batch:
    """`latents` (B, 4, F, h, w); `weight` (B, 1, F, h, w), 1 on and next to the subject and 0 elsewhere;
    `token_ids` (B, T); `rows`: each sample's (clip, first frame)."""

    latents: Tensor
    weight: Tensor
    token_ids: Tensor
    rows: list[tuple[int, int]]


class DrawnClips:
    """`count` drawn clips of one process, and the pixels of the first `pixel_count` of them."""

    def __init__(
        self, arrays: dict[str, NDArray[Any]], captions: list[str], phrases: list[str], tokenizer: CLIPTokenizer
    ) -> None:
        self._latents: NDArray[np.float16] = arrays["latents"]  # (N, F, 4, h, w)
        self._subject: NDArray[np.uint8] = arrays["subject"]  # (N, F, h, w)
        self._boxes: NDArray[np.float32] = arrays["boxes"]  # (N, F, 4)
        self._camera_px: NDArray[np.float32] = arrays["camera_px"]  # (N, F, 2)
        self.frames: NDArray[np.uint8] = arrays["frames"]  # (n, H, W, 3)
        self._ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        self._tokens = [prompt_tokens(tokenizer, c, [p]) for c, p in zip(captions, phrases, strict=True)]

    def __len__(self) -> int:
        return len(self._latents)

    def sample(self, batch: int, frames: int, rng: np.random.Generator) -> Batch:
        """A random batch of whole clips (`frames` = FRAMES) or of single pictures (`frames` = 1)."""
        rows = [(int(rng.integers(len(self))), int(rng.integers(FRAMES - frames + 1))) for _ in range(batch)]
        latents = np.stack([self._latents[clip, start : start + frames] for clip, start in rows]).astype(np.float32)
        subject = np.stack([self._subject[clip, start : start + frames] for clip, start in rows]).astype(np.float32)
        return Batch(
            latents=torch.from_numpy(latents).transpose(1, 2).contiguous(),
            weight=torch.from_numpy(subject)[:, None],
            token_ids=self._ids[[clip for clip, _ in rows]],
            rows=rows,
        )

    def camera_cells(self, row: tuple[int, int], frames: int) -> NDArray[np.int64]:
        """(F, 2) whole latent cells that the camera has travelled right and down, rounded as the product rounds."""
        clip, start = row
        return np.round(self._camera_px[clip, start : start + frames] / FACTOR).astype(np.int64)

    def box_control(self, row: tuple[int, int], frames: int, alpha: float, amplify: bool) -> BoxControl:
        """The attention edit that asks for the subject where it was drawn."""
        clip, start = row
        track = [Box(*map(float, box)) for box in self._boxes[clip, start : start + frames]]
        return BoxControl([track], self.tokens(clip), alpha, amplify)

    def tokens(self, clip: int) -> PromptTokens:
        """Where the subject's words stand in the clip's caption."""
        return self._tokens[clip]


def load_or_draw(path: Path, seed: list[int], count: int, pixel_count: int, tokenizer: CLIPTokenizer) -> DrawnClips:
    """The clips in the file at `path`, drawn and saved there first if it does not exist."""
    if not path.exists():
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_draw(seed, count, pixel_count))
        partial.replace(path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    captions, phrases = (arrays.pop(name).tolist() for name in ("captions", "phrases"))
    return DrawnClips(arrays, captions, phrases, tokenizer)


def _draw(seed: list[int], count: int, pixel_count: int) -> dict[str, NDArray]:
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    for index in range(count):
        rng = np.random.default_rng([*seed, index])
        clip = draw_clip(random_scene(rng), rng)
        columns["latents"].append(latents_of_frames(clip.frames).astype(np.float16))
        columns["subject"].append(_grown(latent_coverage(clip.masks) > 0))
        columns["boxes"].append(clip.boxes_xyxy)
        columns["camera_px"].append(clip.camera_px)
        columns["captions"].append(clip.scene.caption)
        columns["phrases"].append(clip.scene.phrase)
        if index < pixel_count:
            columns["frames"].extend(clip.frames[:: FRAMES // 2])
    return {name: np.asarray(values) for name, values in columns.items()}


def _grown(cells: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The cells (F, h, w) and their neighbours: the silhouette is learned just outside the subject, too."""
    grown = torch.nn.functional.max_pool2d(torch.from_numpy(cells)[:, None].float(), 3, stride=1, padding=1)
    return grown[:, 0].numpy().astype(np.uint8)

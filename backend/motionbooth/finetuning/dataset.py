"""What a subject is learned from, encoded once: pictures as VAE posteriors, masks, the prompt, ordinary clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import MaskDoubt, SubjectSpec
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from torch import Tensor

from motionbooth.control.boxes import BoxControl
from motionbooth.control.prompt import PromptTokens, prompt_tokens
from motionbooth.finetuning.losses import mask_cells
from motionbooth.finetuning.pasting import ENLARGED, Rgba, cut_out
from motionbooth.generation.sampling import OnStep
from motionbooth.models.registry import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.pictures.images import CENTERED, Mask, Placement, Rgb, TrainingPicture, fit_picture
from motionbooth.pictures.mask_doubts import doubts_about
from motionbooth.pictures.masks import Finder, Hint, picture_with_mask


def nobody(done: int, steps: int) -> None:
    """Tells of progress to no one."""


@dataclass(frozen=True)
class SubjectData:
    """N pictures of the subject and K ordinary clips, as the UNet meets them.

    `mean`, `std` (N, C, 1, h, w): the VAE's posterior of each picture, already in the latents' scale. `masks`
    (N, 1, H, W): 1 inside the subject, 0 outside and in the padding. `text` (N, tokens, D): "a sks dog on the grass",
    or (1, tokens, D) where all have one caption; the phrase is at `positions` of each. `clips` (K, C, F, h, w) and
    their captions' embeddings `clip_text` (K, tokens, D). `edits`: for each picture the attention edit of its own box.
    """

    mean: Tensor
    std: Tensor
    masks: Tensor
    text: Tensor
    positions: tuple[int, ...]
    clips: Tensor
    clip_text: Tensor
    edits: tuple[BoxControl, ...] = ()


@dataclass(frozen=True)
class SubjectPicture:
    """One of the subject's pictures: `placed` at the base's size, the first as large as it can be; its `cutout`."""

    placed: list[TrainingPicture]
    cutout: Rgba


def read_pictures(
    subject: SubjectSpec,
    blob_path: Callable[[str], Path],
    base: Base,
    settings: TrainSettings,
    seed: int,
    on_picture: Callable[[int], None],
    finder: Finder | None = None,
    on_doubt: Callable[[MaskDoubt], None] | None = None,
) -> list[SubjectPicture]:
    """The subject's pictures, each placed `settings.placements` times at the base's size.

    `finder` finds the subject where there is no mask; None is GrabCut. `on_doubt`: told of each mask that was found
    and is doubtful.

    Raises InvalidInput naming the picture that cannot be used.
    """
    rng = np.random.default_rng(seed)
    width, height = base.settings.width, base.settings.height
    pictures = []
    for number, picture in enumerate(subject.pictures, start=1):
        label = f"picture {number} of {len(subject.pictures)}" + (f" ({picture.name})" if picture.name else "")
        mask_path = None if picture.mask is None else blob_path(picture.mask)
        hint = Hint(picture.box, picture.point)

        def on_found(rgb: Rgb, mask: Mask, label: str = label, hint: Hint = hint) -> None:
            if on_doubt is not None and (reasons := doubts_about(rgb, mask, hint, finder)):
                on_doubt(MaskDoubt(label, list(reasons)))

        rgb, mask = picture_with_mask(blob_path(picture.image), mask_path, label, hint, finder, on_found)
        placements = _placements(settings, mask, rng)
        placed = [fit_picture(rgb, mask, width, height, settings.fit, placement) for placement in placements]
        pictures.append(SubjectPicture(placed, cut_out(rgb, mask, ENLARGED * max(width, height))))
        for placed_picture in placed:
            _check_size(placed_picture, base, label)
        on_picture(number)
    return pictures


def _placements(settings: TrainSettings, mask: Mask, rng: np.random.Generator) -> list[Placement]:
    """The paper's own first: as large as it can be, in the middle. The others anywhere, the subject smaller."""
    rows, columns = mask.nonzero()
    extent = max(np.ptp(rows) / mask.shape[0], np.ptp(columns) / mask.shape[1], 0.01)
    lowest = min(1.0, settings.smallest / extent)
    others = rng.uniform((lowest, 0, 0), (1, 1, 1), size=(settings.placements - 1, 3))
    return [CENTERED, *(Placement(*map(float, row)) for row in others)]


def covers_cells(picture: TrainingPicture, base: Base) -> bool:
    """Whether anything of the subject is left on the grid of the latents."""
    return bool(mask_cells(torch.from_numpy(picture.mask)[None, None], base.latent_size).any())


def _check_size(picture: TrainingPicture, base: Base, label: str) -> None:
    if not covers_cells(picture, base):
        raise InvalidInput(
            "In {label} the subject is too thin or too small: nothing of it is left at the {width} x "
            "{height} pixels of this base model. Crop the picture closer to it.",
            label=label,
            width=picture.mask.shape[1],
            height=picture.mask.shape[0],
        )


def encode_pictures(
    base: Base, pictures: Sequence[TrainingPicture], on_picture: OnStep = nobody
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, std, masks) of SubjectData."""
    mean, std = encode_frames(base, np.stack([picture.rgb for picture in pictures]), on_picture)
    masks = torch.from_numpy(np.stack([picture.mask for picture in pictures]))[:, None]
    return mean.unsqueeze(2), std.unsqueeze(2), masks.to(base.device)


@torch.no_grad()
def encode_frames(base: Base, frames: NDArray[np.uint8], on_frame: OnStep = nobody) -> tuple[Tensor, Tensor]:
    """The VAE's posterior of RGB pictures (N, H, W, 3): mean and std (N, C, h, w) in the latents' scale.

    One picture at a time: the encoder needs far more memory than what it gives.
    """
    pixels = rearrange(torch.from_numpy(frames).to(base.device, base.dtype) / 127.5 - 1, "n h w c -> n c h w")
    posteriors = []
    for number, picture in enumerate(pixels, start=1):
        posteriors.append(base.vae.encode(picture[None]).latent_dist)
        on_frame(number, len(frames))
    scale = base.vae.config.scaling_factor
    return (
        torch.cat([posterior.mean for posterior in posteriors]) * scale,
        torch.cat([posterior.std for posterior in posteriors]) * scale,
    )


def gather_data(
    base: Base,
    subject: SubjectSpec,
    pictures: Sequence[TrainingPicture],
    clips: Tensor,
    captions: Sequence[str],
    on_picture: OnStep = nobody,
) -> SubjectData:
    """Everything that stays the same from step to step. Raises InvalidInput for a subject name that has no tokens."""
    prompts = [f"{subject.prompt} {picture.place}".strip() for picture in pictures]
    different = list(dict.fromkeys(prompts))
    phrase = f"{subject.token} {subject.class_word}"
    tokens = {prompt: prompt_tokens(base.tokenizer, prompt, [phrase]) for prompt in different}
    text = base.embed(different)
    mean, std, masks = encode_pictures(base, pictures, on_picture)
    return SubjectData(
        mean,
        std,
        masks,
        text if len(different) == 1 else text[[different.index(prompt) for prompt in prompts]],
        tokens[prompts[0]].subjects[0],  # all captions begin alike
        clips.to(base.device, base.dtype),
        base.embed(captions) if captions else mean.new_zeros(0),
        tuple(_edit(base, picture.mask, tokens[prompt]) for picture, prompt in zip(pictures, prompts, strict=True)),
    )


def _edit(base: Base, mask: Mask, tokens: PromptTokens) -> BoxControl:
    """The attention edit that asks for the subject just where it is."""
    rows, columns = mask.nonzero()
    height, width = mask.shape
    bounds = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
    box = Box(*map(float, bounds))
    return BoxControl([[box]], tokens, base.settings.alpha, amplify=True, suppress=base.settings.suppress)

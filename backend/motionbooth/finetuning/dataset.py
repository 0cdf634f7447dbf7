"""Training data, encoded once: pictures as VAE posteriors, masks, caption embeddings, prior-preservation clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import MaskDoubt, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box
from motionbooth_protocol.phrases import phrase_spans
from motionbooth_protocol.text import Text
from numpy.typing import NDArray
from torch import Tensor

from motionbooth.control.boxes import BoxControl
from motionbooth.control.prompt import PromptTokens
from motionbooth.finetuning.losses import mask_cells
from motionbooth.finetuning.pasting import Rgba, cut_out
from motionbooth.models.base import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.pictures.images import CENTERED, Mask, Placement, TrainingPicture, fit_picture
from motionbooth.pictures.mask_doubts import doubts_about
from motionbooth.pictures.masks import Finder, Hint, picture_with_mask
from motionbooth.progress.reporting import OnProgress, ignore_progress


@dataclass(frozen=True)
class TrainingData:
    """N pictures of the subject and K prior-preservation clips, as the network gets them."""

    mean: Tensor
    """(N, C, 1, h, w): the mean of each picture's VAE posterior, in the latents' scale."""
    std: Tensor
    """(N, C, 1, h, w): its standard deviation."""
    masks: Tensor
    """(N, 1, H, W): 1 on the subject, 0 elsewhere and in the padding."""
    text: Tensor
    """(N, tokens, D): embeddings of the captions ("a sks dog on the grass"); (1, tokens, D) if all are the same."""
    positions: Tensor
    """(N, k): the subject's k tokens in each caption; (1, k) if all are the same."""
    clips: Tensor
    """(K, C, F, h, w): latents of the prior-preservation clips."""
    clip_text: Tensor
    """(K, tokens, D): embeddings of their captions."""
    edits: tuple[BoxControl, ...] = ()
    """For each picture, the attention edit that asks for the subject where it is."""


@dataclass(frozen=True)
class SubjectPicture:
    """One of the subject's pictures, prepared for training."""

    placed: list[TrainingPicture]
    """At the base's size; the first one as large as fits."""
    cutout: Rgba
    """The subject alone."""
    doubt: MaskDoubt | None = None
    """Why its mask may be wrong, if it was found and not given."""


def read_pictures(
    spec: TrainSpec,
    blob_path: Callable[[str], Path],
    base: Base,
    settings: TrainSettings,
    finder: Finder | None = None,
    on_picture: OnProgress = ignore_progress,
) -> list[SubjectPicture]:
    """The subject's pictures, each placed up to `settings.placements` times at the base's size.

    `finder` finds the subject in pictures without a mask; None for GrabCut. Raises InvalidInput naming the picture that
    cannot be used.
    """
    rng = np.random.default_rng(spec.seed)
    width, height = base.settings.width, base.settings.height
    sources, pictures = spec.subject.pictures, []
    for number, picture in enumerate(sources, start=1):
        label = Text.of(
            "picture {number} of {count} ({name})" if picture.name else "picture {number} of {count}",
            number=number,
            count=len(sources),
            name=picture.name,
        )
        mask_path = None if picture.mask is None else blob_path(picture.mask)
        hint = Hint(picture.box, picture.point)
        rgb, mask, was_found = picture_with_mask(blob_path(picture.image), mask_path, label, hint, finder)
        reasons = doubts_about(rgb, mask, hint, finder) if was_found else ()
        placements = _placements(settings, mask, rng)
        fitted = [fit_picture(rgb, mask, width, height, settings.fit, placement) for placement in placements]
        placed = [replace(each, caption=picture.caption) for each in fitted]
        _check_size(placed[0], base, label)
        placed = [each for each in placed if covers_cells(each, base)]  # thin ones may vanish where they are smaller
        doubt = MaskDoubt(label, list(reasons)) if reasons else None
        pictures.append(SubjectPicture(placed, cut_out(rgb, mask, max(width, height)), doubt))
        on_picture(number, len(sources))
    return pictures


def _placements(settings: TrainSettings, mask: Mask, rng: np.random.Generator) -> list[Placement]:
    """First the paper's own: as large as fits, centered. The others anywhere, with the subject smaller."""
    rows, columns = mask.nonzero()
    extent = max(np.ptp(rows) / mask.shape[0], np.ptp(columns) / mask.shape[1], 0.01)
    lowest = min(1.0, settings.min_height / extent)
    others = rng.uniform((lowest, 0, 0), (1, 1, 1), size=(settings.placements - 1, 3))
    return [CENTERED, *(Placement(*map(float, row)) for row in others)]


def covers_cells(picture: TrainingPicture, base: Base) -> bool:
    """Whether the subject covers at least one latent cell."""
    return bool(mask_cells(torch.from_numpy(picture.mask)[None, None], base.latent_size).any())


def _check_size(picture: TrainingPicture, base: Base, label: Text) -> None:
    if not covers_cells(picture, base):
        raise InvalidInput(
            "In {label} the subject is too thin or too small: nothing remains of it at the {width} x "
            "{height} pixels of this base model. Crop the picture closer to it.",
            label=label,
            width=picture.mask.shape[1],
            height=picture.mask.shape[0],
        )


@torch.no_grad()
def encode_clips(base: Base, clips: NDArray[np.uint8], on_clip: OnProgress = ignore_progress) -> tuple[Tensor, Tensor]:
    """The VAE's posterior of clips (N, F, H, W, 3) uint8 RGB: mean and std (N, C, F', h, w), in the latents' scale.

    A picture is a clip of one frame. One clip at a time, because the encoder needs far more memory than its result.
    """
    posteriors = []
    with base.vae_at_work():
        for number, clip in enumerate(torch.from_numpy(clips), start=1):
            pixels = clip.to(base.device, base.dtype) / 127.5 - 1
            posteriors.append(base.encode(rearrange(pixels, "f h w c -> f c h w")))
            on_clip(number, len(clips))
    means, stds = zip(*posteriors, strict=True)
    return torch.stack(means), torch.stack(stds)


def encode_training_data(
    base: Base,
    subject: SubjectSpec,
    pictures: Sequence[TrainingPicture],
    clips: Tensor,
    clip_captions: Sequence[str],
    on_picture: OnProgress = ignore_progress,
) -> TrainingData:
    """Encode everything that stays the same from step to step. `clips`: latents (K, C, F, h, w).

    Raises InvalidInput if a caption does not name the subject.
    """
    captions = [f"{picture.caption or subject.prompt} {picture.caption_suffix}".strip() for picture in pictures]
    different = list(dict.fromkeys(captions))
    tokens = {caption: base.prompt_tokens(caption, [subject.phrase]) for caption in different}
    positions = {caption: _first_mention(base, subject, caption, tokens[caption]) for caption in different}
    text = base.embed(different)
    mean, std = encode_clips(base, np.stack([picture.rgb[None] for picture in pictures]), on_picture)
    masks = torch.from_numpy(np.stack([picture.mask for picture in pictures]))[:, None]
    alike = len(set(positions.values())) == 1
    return TrainingData(
        mean,
        std,
        masks.to(base.device),
        text if len(different) == 1 else text[[different.index(caption) for caption in captions]],
        torch.tensor([positions[caption] for caption in captions[: 1 if alike else None]], device=base.device),
        clips.to(base.device, base.dtype),
        base.embed(clip_captions) if clip_captions else mean.new_zeros(0),
        tuple(_edit(base, picture.mask, tokens[caption]) for picture, caption in zip(pictures, captions, strict=True)),
    )


def _first_mention(base: Base, subject: SubjectSpec, caption: str, tokens: PromptTokens) -> tuple[int, ...]:
    """The subject's tokens where the caption first names it: as many in each caption."""
    count = len(base.prompt_tokens(subject.prompt, [subject.phrase]).subjects[0])
    found, mentions = len(tokens.subjects[0]), len(phrase_spans(caption, subject.phrase))
    if found % count or found > count * mentions:  # fewer if the model does not read as far as the last mention
        raise InvalidInput(
            'In the caption "{caption}", "{phrase}" touches other signs. Put spaces around it.',
            caption=caption,
            phrase=subject.phrase,
        )
    return tokens.subjects[0][:count]


def _edit(base: Base, mask: Mask, tokens: PromptTokens) -> BoxControl:
    """The attention edit that asks for the subject where its mask is."""
    rows, columns = mask.nonzero()
    height, width = mask.shape
    bounds = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
    box, control = Box(*map(float, bounds)), base.settings.control
    return BoxControl([[box]], tokens, control.alpha, True, control.suppress, control.soft_edges)

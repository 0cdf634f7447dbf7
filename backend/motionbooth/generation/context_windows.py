"""Clips that are longer than the base's: the network sees overlapping context windows of them, all in each step.

The predictions are averaged where windows overlap, as in MultiDiffusion (Bar-Tal et al., 2023) with frames instead of
pixels. All else that a step does (the camera's shift, the scenery, the guide, the sampler) it does to the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from motionbooth.control.boxes import BoxControl
from motionbooth.models.base import Base

Text = tuple[Tensor, Tensor, float]  # embeddings of the prompt and of the negative prompt, guidance scale


def predict(
    base: Base,
    latents: Tensor,
    t: Tensor,
    text: Text,
    boxes: BoxControl | None,
    windows: Sequence[range],
    on_window: Callable[[int], None],
) -> Tensor:
    """`base.predict` for latents (B, C, F', h, w) of any length.

    `on_window` is called after each window but the last, with how many are done.
    """
    if len(windows) == 1:
        return base.predict(latents, t, *text, boxes)
    total = torch.zeros_like(latents, dtype=torch.promote_types(latents.dtype, torch.float32))
    weights = total.new_zeros(latents.shape[2], 1, 1)
    for number, window in enumerate(windows):
        if number:
            on_window(number)
        part = slice(window.start, window.stop)
        edit = None if boxes is None else boxes.during(part)
        predicted, weight = base.predict(latents[:, :, part], t, *text, edit), _weights(len(window)).to(weights)
        total[:, :, part] += weight * predicted
        weights[part] += weight
    return (total / weights).to(predicted.dtype)


def _weights(window: int) -> Tensor:
    """The weights of a window's frames, (window, 1, 1). They rise to the middle, so that no frame enters at once."""
    place = torch.arange(1.0, window + 1)
    return torch.minimum(place, place.flip(0))[:, None, None]

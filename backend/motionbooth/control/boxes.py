"""Box control (paper, section 3.3): a bias on the text cross-attention keeps each subject's words to its box.

For query cell i of frame f and key token j, added to the logits after the 1/sqrt(d) scale:

    i inside a box of j's subject     + alpha * (1 - |B| / |Q|) while amplifying, else 0
    i outside every such box          - infinity
    other content tokens              - infinity (suppress="content", the authors' choice) or 0 ("subject")
    the background phrase's tokens    as a subject's whose box is the cells outside all boxes
    BOS, EOS, padding                 0, so that no row is ever wholly suppressed
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet3DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from motionbooth_protocol.motion import Box
from torch import Tensor

from motionbooth.control.prompt import PromptTokens
from motionbooth.control.settings import Suppress

Grid = tuple[int, int]  # (height, width) in cells

_TEXT_ATTENTION = re.compile(r"\.attentions\.\d+\.transformer_blocks\.\d+\.attn2\.processor$")


@dataclass(frozen=True)
class BoxControl:
    """The attention edit asked for one sample of a batch.

    `boxes[s][f]`: box of subject s in frame f, None where it is out of frame (its words are then suppressed in the
    whole frame); at least one subject: a sample without any has no BoxControl. `tokens.subjects` has one entry for each
    subject. `alpha` >= 0; it acts only while `amplify`.
    """

    boxes: Sequence[Sequence[Box | None]]
    tokens: PromptTokens
    alpha: float
    amplify: bool
    suppress: Suppress = "content"


def level_grids(latent_size: Grid, levels: int) -> list[Grid]:
    """The grids of a UNet's levels, finest first: each halves the one above, rounding up (stride 2, padding 1)."""
    height, width = latent_size
    return [(math.ceil(height / 2**level), math.ceil(width / 2**level)) for level in range(levels)]


def box_cells(box: Box | None, grid: Grid) -> tuple[int, int, int, int]:
    """The box in whole cells: rows y1..y2 and columns x1..x2 (the latter of each excluded), as (x1, y1, x2, y2).

    Rounded, clipped to the grid, and never empty while its centre is in the frame; (0, 0, 0, 0) for nothing.
    """
    if box is None:
        return (0, 0, 0, 0)
    height, width = grid
    x1, x2 = _span(box.x1, box.x2, width)
    y1, y2 = _span(box.y1, box.y2, height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else (0, 0, 0, 0)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    first, last = (min(max(round(edge * size), 0), size) for edge in (low, high))
    center = (low + high) / 2
    if first == last and 0 <= center < 1:
        first = int(center * size)
        last = first + 1
    return first, last


def box_mask(boxes: Sequence[Sequence[Box | None]], grid: Grid) -> Tensor:
    """Which cells lie in which box: bool (S, F, h, w) for the boxes of S subjects in F frames."""
    height, width = grid
    cells = torch.tensor([[box_cells(box, grid) for box in track] for track in boxes], dtype=torch.long)
    x1, y1, x2, y2 = rearrange(cells, "s f edge -> edge s f 1 1")
    row, column = torch.arange(height)[:, None], torch.arange(width)
    return (column >= x1) & (column < x2) & (row >= y1) & (row < y2)


def attention_bias(control: BoxControl, grid: Grid) -> Tensor:
    """The bias of one sample: float32 (F, h*w, tokens), 0 or positive inside boxes, -inf where suppressed."""
    bias = torch.zeros(len(control.boxes[0]), grid[0] * grid[1], control.tokens.length)
    _write_bias(bias, control, grid)
    return bias


def _write_bias(bias: Tensor, control: BoxControl, grid: Grid) -> None:
    """Into zeros (F, h*w, tokens), a column for each controlled token: nothing else of that size is made."""
    tokens = control.tokens
    inside = rearrange(box_mask(control.boxes, grid).to(bias.device), "s f h w -> s f (h w)")  # (S, F, cells)
    outside_all = ~inside.any(dim=0)  # (F, cells)
    if control.suppress == "content":
        bias[:, :, tokens.content.start : tokens.content.stop] = -torch.inf
    alpha = control.alpha if control.amplify else 0.0
    for position in {j for positions in (*tokens.subjects, tokens.background) for j in positions}:
        own = [place for place, positions in zip(inside, tokens.subjects, strict=True) if position in positions]
        places = [torch.stack(own).any(dim=0)] if own else []
        if position in tokens.background:
            places.append(outside_all)
        bias[:, :, position] = _column(places, alpha).to(bias.dtype)


def _column(places: Sequence[Tensor], alpha: float) -> Tensor:
    """One token's bias, float32 (F, cells): alpha * (1 - |B| / |Q|) in each of its places, -inf outside all."""
    column = torch.zeros(places[0].shape, device=places[0].device)
    for place in places:
        column += alpha * (1 - place.float().mean(dim=1, keepdim=True)) * place
    return column.masked_fill_(~torch.stack(list(places)).any(dim=0), -torch.inf)


def batch_bias(controls: Sequence[BoxControl | None], grid: Grid, frames: int, like: Tensor) -> Tensor | None:
    """The bias of a batch: (B*F, 1, h*w, tokens), one entry of `controls` for each sample, dtype and device of `like`.

    A sample whose entry is None is left alone (zeros); None for the whole where no sample has one.
    """
    lengths = {control.tokens.length for control in controls if control is not None}
    if not lengths:
        return None
    (length,) = lengths
    bias = like.new_zeros(len(controls), frames, grid[0] * grid[1], length)
    for number, (sample, control) in enumerate(zip(bias, controls, strict=True)):
        if control is not None and number and control == controls[number - 1]:
            sample.copy_(bias[number - 1])  # takes of one shot
        elif control is not None:
            _write_bias(sample, control, grid)
    return rearrange(bias, "b f cells tokens -> (b f) 1 cells tokens")


class AttentionControl:
    """What all text cross-attentions of one UNet share: the bias to add, and the attention to be watched.

    Made by `AttentionControl.install(unet)`. Until `set_boxes` is called, and after `clear`, the UNet computes what it
    always did. The bias is built once for each grid, when a layer of that grid first asks for it.
    """

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._controls: tuple[BoxControl | None, ...] = ()
        self._frames = 0
        self._latent_size: Grid = (0, 0)
        self._grids: dict[int, Grid] = {}
        self._bias: dict[int, Tensor | None] = {}
        self._watched_cells: int | None = None
        self._watched_tokens: list[int] = []
        self._watched: list[Tensor] = []

    @classmethod
    def install(cls, unet: UNet3DConditionModel) -> AttentionControl:
        """Give every spatial text cross-attention of `unet` the processor below; all others stay as they are."""
        control = cls(levels=len(unet.config.block_out_channels))
        processors = {
            name: BoxAttnProcessor(control) if _TEXT_ATTENTION.search(name) else processor
            for name, processor in unet.attn_processors.items()
        }
        unet.set_attn_processor(processors)
        return control

    def set_boxes(self, controls: Sequence[BoxControl | None], latent_size: Grid, frames: int) -> None:
        """Edit the following UNet calls: one control for each sample of the batch, in order, None for no edit.

        With classifier-free guidance in one batch: [None, control]. `latent_size`: (h, w) of the latents.
        """
        asked = (tuple(controls), latent_size, frames)
        if asked == (self._controls, self._latent_size, self._frames):
            return  # the bias built so far serves this step too
        self._controls, self._latent_size, self._frames = asked
        self._bias = {}
        self._grids = {height * width: (height, width) for height, width in level_grids(latent_size, self._levels)}

    def clear(self) -> None:
        """No edit from now on."""
        self._controls, self._bias = (), {}

    def watch(self, positions: Sequence[int], grid: Grid) -> None:
        """Keep the probabilities of these tokens in the layers of this grid, from now on; for the STCA loss."""
        self._watched_tokens, self._watched_cells = list(positions), grid[0] * grid[1]
        self._watched = []

    def unwatch(self) -> list[Tensor]:
        """Stop keeping them. One (B*F, cells, positions) for each layer, averaged over heads, with its gradient."""
        taken, self._watched, self._watched_cells = self._watched, [], None
        return taken

    def watching_as_now(self) -> AbstractContextManager[None]:
        """For layers that are computed a second time, later: in this context they are watched as they are now.

        (Gradient checkpointing must do the second time all that it did the first.) What is seen is not kept.
        """
        return self._watching(self._watched_tokens, self._watched_cells)

    @contextmanager
    def _watching(self, tokens: list[int], cells: int | None) -> Iterator[None]:
        before = self._watched_tokens, self._watched_cells, self._watched
        self._watched_tokens, self._watched_cells, self._watched = tokens, cells, []
        try:
            yield
        finally:
            self._watched_tokens, self._watched_cells, self._watched = before

    def bias_for(self, query: Tensor) -> Tensor | None:
        """The bias for a query (B*F, heads, cells, d), in its dtype and on its device.

        Of a batch with an edit every row has one, zeros where nothing is asked: to leave the unconditional half out,
        its result would have to be joined to the other's, and that copy costs more than the kernel's additions.
        """
        if not any(self._controls):
            return None
        rows, cells = query.shape[0], query.shape[2]
        if rows != len(self._controls) * self._frames:
            raise ValueError(
                f"box control was set for {len(self._controls)} samples of {self._frames} frames, got {rows} rows"
            )
        if cells not in self._bias:
            self._bias[cells] = batch_bias(self._controls, self._grids[cells], self._frames, query)
        return self._bias[cells]

    def observe(self, query: Tensor, key: Tensor) -> None:
        """Record A = exp(q k_P - logsumexp(q k)): the watched columns of the softmax without the others."""
        if query.shape[2] != self._watched_cells:
            return
        bias = self.bias_for(query)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B*F, heads, cells, tokens)
        logits = logits if bias is None else logits + bias
        chosen = logits[..., self._watched_tokens] - logits.logsumexp(dim=-1, keepdim=True)
        self._watched.append(chosen.exp().mean(dim=1))


class BoxAttnProcessor:
    """Fused text cross-attention with the bias of a shared AttentionControl."""

    def __init__(self, control: AttentionControl) -> None:
        self._control = control

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any
    ) -> Tensor:
        """hidden_states (B*F, cells, C), encoder_hidden_states (B*F, tokens, D) -> (B*F, cells, C)."""
        query, key, value = (
            rearrange(states, "rows n (heads d) -> rows heads n d", heads=attn.heads)
            for states in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        self._control.observe(query, key)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=self._control.bias_for(query))
        return attn.to_out[1](attn.to_out[0](rearrange(out, "rows heads n d -> rows n (heads d)")))

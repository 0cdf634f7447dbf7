"""Box control (paper, section 3.3): a bias on the text cross-attention confines each subject's tokens to its box.

For query cell i of frame f and key token j, added to the logits after the 1/sqrt(d) scale:

    i inside a box of j's subject     + alpha * (1 - |B| / |Q|) while amplifying, else 0
    i outside every such box          - infinity
    other content tokens              - infinity (suppress="content", the authors' choice) or 0 ("subject")
    the background phrase's tokens    like a subject whose box is all cells outside the boxes
    BOS, EOS, padding                 0, so that no row is ever entirely suppressed

If the prompt is split by region, cells outside all boxes attend to a second prompt instead, and no others do.

A DiT reads padding as ordinary keys, all alike. While amplifying, a subject's bias is larger by the logarithm of their
number, so that all of them together weigh as one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
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
    """The attention edit of one sample of a batch. A sample without subjects has none."""

    boxes: Sequence[Sequence[Box | None]]
    """boxes[s][f]: the box of subject s in frame f, in shares of the frame; None if the subject is out of frame, which
    suppresses its tokens in the whole frame."""
    tokens: PromptTokens
    """`tokens.subjects` has one entry for each subject."""
    alpha: float
    """Strength of the amplification, >= 0."""
    amplify: bool
    """Whether `alpha` acts in this step."""
    suppress: Suppress = "content"
    soft_edges: bool = False
    tied: bool = False
    """Whether the subjects are tied across frames in this step. See models/wan/ties.py."""

    def during(self, frames: slice) -> BoxControl:
        """The edit of some of the frames."""
        return replace(self, boxes=tuple(track[frames] for track in self.boxes))


def level_grids(latent_size: Grid, levels: int) -> list[Grid]:
    """The grids of a UNet's levels, finest first; each halves the one before, rounding up (stride 2, padding 1)."""
    height, width = latent_size
    return [(math.ceil(height / 2**level), math.ceil(width / 2**level)) for level in range(levels)]


def box_cells(box: Box | None, grid: Grid) -> tuple[int, int, int, int]:
    """The box in whole cells (x1, y1, x2, y2): columns x1 <= x < x2 and rows y1 <= y < y2.

    Rounded, clipped to the grid, and never empty while its center is in the frame; (0, 0, 0, 0) for no cell.
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
    """The cells inside the boxes of S subjects in F frames: bool (S, F, h, w)."""
    height, width = grid
    cells = torch.tensor([[box_cells(box, grid) for box in track] for track in boxes], dtype=torch.long)
    x1, y1, x2, y2 = rearrange(cells, "s f edge -> edge s f 1 1")
    row, column = torch.arange(height)[:, None], torch.arange(width)
    return (column >= x1) & (column < x2) & (row >= y1) & (row < y2)


def box_coverage(boxes: Sequence[Sequence[Box | None]], grid: Grid) -> Tensor:
    """The share of each cell that the boxes of S subjects cover in F frames: (S, F, h, w), 0..1."""
    edges = torch.tensor([[(0.0,) * 4 if box is None else box.as_tuple() for box in track] for track in boxes])
    x1, y1, x2, y2 = rearrange(edges, "s f edge -> edge s f 1")
    across, down = _overlap(x1, x2, grid[1]), _overlap(y1, y2, grid[0])
    return across[..., None, :] * down[..., :, None]


def _overlap(low: Tensor, high: Tensor, size: int) -> Tensor:
    """The share of each of `size` cells in a row that is between two edges (..., 1): (..., size)."""
    cell = torch.arange(size)
    return ((high * size).minimum(cell + 1) - (low * size).maximum(cell)).clamp(0, 1)


def _write_bias(bias: Tensor, control: BoxControl, grid: Grid) -> None:
    """Write the bias of one sample, 0 or positive inside boxes, -inf where suppressed, into zeros (F, h*w, tokens).

    One column for each controlled token; allocates nothing of that size.
    """
    tokens = control.tokens
    coverage = box_coverage if control.soft_edges else box_mask
    inside = rearrange(coverage(control.boxes, grid).to(bias.device).float(), "s f h w -> s f (h w)")  # (S, F, cells)
    outside_all = 1 - inside.amax(dim=0)  # (F, cells)
    if tokens.outside:
        bias[:, :, : tokens.outside.start] = inside.amax(dim=0).log()[..., None]
        bias[:, :, tokens.outside.start :] = outside_all.log()[..., None]
    if control.suppress == "content":
        bias[:, :, tokens.content.start : tokens.content.stop] = -torch.inf
    alpha = control.alpha if control.amplify else 0.0
    against_padding = math.log(1 + tokens.padding) if alpha else 0.0
    for position in {j for positions in (*tokens.subjects, tokens.background) for j in positions}:
        own = [place for place, positions in zip(inside, tokens.subjects, strict=True) if position in positions]
        places = [torch.stack(own).amax(dim=0)] if own else []
        if position in tokens.background:
            places.append(outside_all)
        bias[:, :, position] = _column(places, alpha, against_padding).to(bias.dtype)


def _column(places: Sequence[Tensor], alpha: float, against_padding: float) -> Tensor:
    """One token's bias, float32 (F, cells): alpha * (1 - |B| / |Q|) in each of its places, -inf outside all.

    `places`: the share (0..1) of each cell that is in the place, whose logarithm is part of the bias.
    """
    column = torch.full(places[0].shape, against_padding, device=places[0].device)
    for place in places:
        column += alpha * (1 - place.mean(dim=1, keepdim=True)) * (place > 0)
    return column + torch.stack(list(places)).amax(dim=0).log()


def batch_bias(controls: Sequence[BoxControl | None], grid: Grid, frames: int, like: Tensor) -> Tensor | None:
    """The bias of a batch: (B*F, 1, h*w, tokens), in the dtype and on the device of `like`.

    `controls`: one entry for each sample; None for a sample without an edit, whose bias is zero. Returns None if no
    sample has an edit.
    """
    lengths = {control.tokens.length for control in controls if control is not None}
    if not lengths:
        return None
    (length,) = lengths
    bias = like.new_zeros(len(controls), frames, grid[0] * grid[1], length)
    for number, (sample, control) in enumerate(zip(bias, controls, strict=True)):
        if control is not None and number and control == controls[number - 1]:
            sample.copy_(bias[number - 1])  # as for takes of one shot
        elif control is not None:
            _write_bias(sample, control, grid)
    return rearrange(bias, "b f cells tokens -> (b f) 1 cells tokens")


class AttentionControl:
    """The state shared by all text cross-attentions of a network: the bias they add, and the attention they record.

    Before `set_boxes` and after `clear` the network computes without any edit. The bias is built once for each grid,
    when a layer of that grid first needs it.
    """

    def __init__(self, grids: Callable[[Grid], Sequence[Grid]]) -> None:
        """`grids`: from the size of the latents to the grids of the layers."""
        self._grids_of = grids
        self._suspended = False
        self._controls: tuple[BoxControl | None, ...] = ()
        self._frames = 0
        self._latent_size: Grid = (0, 0)
        self._grids: dict[int, Grid] = {}
        self._bias: dict[int, Tensor | None] = {}
        self._recorded_cells: int | None = None
        self._recorded_tokens = torch.zeros(0, dtype=torch.long)
        self._recorded: list[Tensor] = []

    @classmethod
    def install(cls, unet: UNet3DConditionModel) -> AttentionControl:
        """Replace the processor of every spatial text cross-attention of `unet`, and no other, by BoxAttnProcessor."""
        control = cls(partial(level_grids, levels=len(unet.config.block_out_channels)))
        processors = {
            name: BoxAttnProcessor(control) if _TEXT_ATTENTION.search(name) else processor
            for name, processor in unet.attn_processors.items()
        }
        unet.set_attn_processor(processors)
        return control

    def set_boxes(self, controls: Sequence[BoxControl | None], latent_size: Grid, frames: int) -> None:
        """Edit the following calls of the network. One control for each sample of the batch, None for no edit.

        With classifier-free guidance in one batch: [None, control]. `latent_size`: (h, w) of the latents.
        """
        edit = (tuple(controls), latent_size, frames)
        if edit == (self._controls, self._latent_size, self._frames):
            return  # keep the bias that is already built
        self._controls, self._latent_size, self._frames = edit
        self._bias = {}
        self._grids = {height * width: (height, width) for height, width in self._grids_of(latent_size)}

    @property
    def active(self) -> tuple[BoxControl | None, ...]:
        """The edits of the following call of the network, one for each sample of the batch; none while suspended."""
        return () if self._suspended else self._controls

    def clear(self) -> None:
        """Remove the edit."""
        self._controls, self._bias = (), {}

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """A context without the edit, which keeps the bias that is already built."""
        self._suspended = True
        try:
            yield
        finally:
            self._suspended = False

    def record(self, positions: Sequence[int] | Tensor, grid: Grid) -> None:
        """Record the attention probabilities of these tokens in all layers of this grid, for the STCA loss.

        `positions`: (k), or (1, k), or each row's own (B*F, k).
        """
        self._recorded_tokens, self._recorded_cells = torch.as_tensor(positions), grid[0] * grid[1]
        self._recorded = []

    def stop_recording(self) -> list[Tensor]:
        """Stop recording. Returns (B*F, cells, positions) for each layer, averaged over heads, with gradients."""
        taken, self._recorded, self._recorded_cells = self._recorded, [], None
        return taken

    def recording_as_now(self) -> AbstractContextManager[None]:
        """A context that records the same layers as now, and discards what they record.

        Gradient checkpointing needs it: the recomputation must do what the first computation did.
        """
        return self._recording(self._recorded_tokens, self._recorded_cells)

    @contextmanager
    def _recording(self, tokens: Tensor, cells: int | None) -> Iterator[None]:
        before = self._recorded_tokens, self._recorded_cells, self._recorded
        self._recorded_tokens, self._recorded_cells, self._recorded = tokens, cells, []
        try:
            yield
        finally:
            self._recorded_tokens, self._recorded_cells, self._recorded = before

    def bias_for(self, query: Tensor) -> Tensor | None:
        """The bias for a query (B*F, heads, cells, d), in its dtype and on its device; None without an edit.

        If any sample of a batch has an edit, all rows have a bias, zero for samples without one. Computing the
        unconditional half separately would need a copy to join the results, which costs more than adding zeros.
        """
        if not any(self.active):
            return None
        rows, cells = query.shape[0], query.shape[2]
        if rows != len(self._controls) * self._frames:
            raise ValueError(
                f"box control was set for {len(self._controls)} samples of {self._frames} frames, got {rows} rows"
            )
        if cells not in self._bias:
            self._bias[cells] = batch_bias(self._controls, self._grids[cells], self._frames, query)
        return self._bias[cells]

    def clip_bias(self, hidden: Tensor) -> Tensor | None:
        """The bias of a layer that attends to all frames at once: (B, 1, F*cells, tokens); hidden (B, F*cells, C)."""
        if not any(self.active):
            return None
        by_frame = rearrange(hidden, "b (f cells) c -> (b f) 1 cells c", f=self._frames)
        bias = self.bias_for(by_frame)
        return None if bias is None else rearrange(bias, "(b f) 1 cells t -> b 1 (f cells) t", f=self._frames)

    @property
    def is_recording(self) -> bool:
        return self._recorded_cells is not None

    def observe(self, query: Tensor, key: Tensor) -> None:
        """Record A = exp(q k_P - logsumexp(q k)), the softmax's columns of the recorded tokens only."""
        if query.shape[2] != self._recorded_cells:
            return
        bias = self.bias_for(query)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B*F, heads, cells, tokens)
        logits = logits if bias is None else logits + bias
        tokens = torch.atleast_2d(self._recorded_tokens).to(logits.device)[:, None, None]  # (B*F or 1, 1, 1, k)
        columns = logits.gather(-1, tokens.expand(*logits.shape[:-1], -1))
        chosen = columns - logits.logsumexp(dim=-1, keepdim=True)
        self._recorded.append(chosen.exp().mean(dim=1))


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

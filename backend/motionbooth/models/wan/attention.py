"""Box control in Wan's text cross-attentions, whose queries are the tokens of all latent frames at once."""

from __future__ import annotations

from typing import Any

from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from einops import rearrange
from torch import Tensor

from motionbooth.control.boxes import AttentionControl, Grid
from motionbooth.models.wan.ties import install_ties


def install_control(*transformers: WanTransformer3DModel) -> AttentionControl:
    """Replace the processor of every text cross-attention, and no other, by one with a shared AttentionControl."""
    patch: int = transformers[0].config.patch_size[1]

    def grids(latent_size: Grid) -> list[Grid]:
        return [(latent_size[0] // patch, latent_size[1] // patch)]

    control = AttentionControl(grids)
    for transformer in transformers:
        install_ties(transformer.rope, control)
        layers = len(transformer.blocks)
        for number, block in enumerate(transformer.blocks):
            block.attn2.set_processor(WanBoxProcessor(control, layers // 3 <= number < layers - layers // 3))
    return control


class WanBoxProcessor(WanAttnProcessor):
    """diffusers' own attention with the bias of a shared AttentionControl as its mask."""

    def __init__(self, control: AttentionControl, is_middle: bool) -> None:
        """`is_middle`: of the middle third of the layers, the only ones whose attention is recorded. Its logits for
        all tokens of the text take more memory than the rest of the layer.
        """
        super().__init__()
        self._control, self._is_middle = control, is_middle

    @property
    def _attention_backend(self) -> str:
        """Torch's own kernel, as Flash and Sage take no mask. Self-attention may use them."""
        return "native"

    @_attention_backend.setter
    def _attention_backend(self, _: Any) -> None:
        """`set_attention_backend` sets it in all layers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        """hidden_states (B, F*cells, C), encoder_hidden_states (B, tokens, C) -> (B, F*cells, C)."""
        bias = self._control.clip_bias(hidden_states)
        if self._is_middle and self._control.is_recording:
            self._observe(attn, hidden_states, encoder_hidden_states)
        return super().__call__(attn, hidden_states, encoder_hidden_states, bias, rotary_emb)

    def _observe(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None) -> None:
        """Pictures only: their one latent frame is the whole clip."""
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(encoder_hidden_states))
        heads = (rearrange(states, "b n (heads d) -> b heads n d", heads=attn.heads) for states in (query, key))
        self._control.observe(*heads)

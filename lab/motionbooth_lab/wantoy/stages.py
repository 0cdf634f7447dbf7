"""A step of the denoiser's training, and its optimizers."""

import copy
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from motionbooth_lab.wantoy.batches import Batch
from motionbooth_lab.wantoy.network import Denoiser, dropped_padding

SUBJECT_WEIGHT = 2.5
GRADIENT_CLIP = 1.0
KEEP_AVERAGE = 0.998


class BiasedProcessor(WanAttnProcessor):
    """Adds the batch's bias to the cross-attention."""

    bias: Tensor | None = None

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *rest: Any) -> Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, self.bias)


class DenoiserTraining:
    """Trains the transformer and the text encoder: Muon on the blocks' matrices, AdamW on the rest, and an average."""

    def __init__(self, denoiser: Denoiser, compiled: bool = True) -> None:
        self.denoiser = denoiser
        self.average = copy.deepcopy(denoiser).requires_grad_(False)
        self.steps = 0
        self._processors = [BiasedProcessor() for _ in denoiser.transformer.blocks]
        for block, processor in zip(denoiser.transformer.blocks, self._processors, strict=True):
            block.attn2.set_processor(processor)
            if compiled:
                block.compile(dynamic=False)
        self._optimizers = _optimizers(denoiser)

    def loss(self, batch: Batch) -> Tensor:
        """Mean of (v_hat - v)^2, v = noise - latents, with a higher weight on the subject."""
        for processor in self._processors:
            processor.bias = batch.bias
        sigma = batch.sigma[:, None, None, None, None]
        noisy = (1 - sigma) * batch.latents + sigma * batch.noise
        mask = batch.ids > 0
        text = self.denoiser.text_encoder(batch.ids, mask).last_hidden_state
        text = dropped_padding(text, mask)
        predicted = self.denoiser.transformer(noisy, 1000 * batch.sigma, text).sample
        weight = 1 + (SUBJECT_WEIGHT - 1) * batch.subject
        return ((predicted - (batch.noise - batch.latents)).square() * weight).mean()

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """Take one step. Returns figures for the log, which a GPU may still be computing."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = self.loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), GRADIENT_CLIP)
        for optimizer in self._optimizers:
            optimizer.step()
        self.steps += 1
        keep = min(KEEP_AVERAGE, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.denoiser.parameters()), 1 - keep)
        return {"loss": loss.detach(), "gradient": norm}

    def state(self) -> dict[str, Any]:
        return {
            "denoiser": self.denoiser.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [each.state_dict() for each in self._optimizers],
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.denoiser.load_state_dict(state["denoiser"])
        self.average.load_state_dict(state["average"])
        for optimizer, each in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(each)
        self.steps = state["steps"]


def _optimizers(denoiser: Denoiser) -> list[torch.optim.Optimizer]:
    blocks: WanTransformer3DModel = denoiser.transformer.blocks
    matrices = [p for p in blocks.parameters() if p.dim() == 2]
    chosen = set(map(id, matrices))
    others = [p for p in denoiser.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)]

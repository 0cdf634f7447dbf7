"""Training of the denoiser and the text encoder, first on single pictures, then on clips."""

import contextlib
import copy
import threading
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from motionbooth.control.boxes import BoxAttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from motionbooth_lab.toybox.batches import Batch, Batches
from motionbooth_lab.toybox.draw import FRAMES
from motionbooth_lab.toybox.masters import Masters
from motionbooth_lab.toybox.network import bypassed_time

PICTURE_STEP_SHARE = 0.3
"""Share of steps on pictures in the clip stage."""

SUBJECT_WEIGHT = 3.0
SNR_LIMIT = 5.0


class Denoiser(nn.Module):
    """The trained networks: the UNet and the text encoder."""

    def __init__(self, unet: UNet3DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


class GivenBias:
    """Replaces control.boxes.AttentionControl: provides the biases of a batch by number of cells."""

    def __init__(self) -> None:
        self._biases: dict[int, Tensor] = {}

    @classmethod
    def install(cls, unet: UNet3DConditionModel) -> "GivenBias":
        """Install the product's processor in every spatial text cross-attention."""
        given = cls()
        processors = {
            key: BoxAttnProcessor(given) if ".attentions." in key and "attn2" in key else value  # type: ignore[arg-type]
            for key, value in unet.attn_processors.items()
        }
        unet.set_attn_processor(processors)
        return given

    def set(self, biases: list[Tensor]) -> None:
        self._biases = {bias.shape[2]: bias for bias in biases}

    def bias_for(self, query: Tensor) -> Tensor:
        return self._biases[query.shape[2]]

    def observe(self, query: Tensor, key: Tensor) -> None:
        """Does nothing: there is no attention loss when the base model is trained."""


class DenoiserStage:
    """Trains the denoiser on pictures (stage "pictures") or on clips mixed with pictures (stage "clips")."""

    def __init__(
        self,
        name: str,
        denoiser: Denoiser,
        scheduler: DDIMScheduler,
        batches: Batches,
        pictures: int,
        clips: int,
        rates: tuple[float, float],
        min_snr: bool = True,
        with_muon: bool = False,
    ) -> None:
        self._min_snr = min_snr
        self.name, self._denoiser, self._batches = name, denoiser, batches
        self._is_pictures = name == "pictures"
        self._pictures, self._clips = pictures, clips
        self._first_rate, self._last_rate = rates
        self._device = next(denoiser.parameters()).device
        self._alphas = scheduler.alphas_cumprod.to(self._device)
        self._control = GivenBias.install(denoiser.unet)
        self.masters = Masters(denoiser, betas=(0.9, 0.99), weight_decay=1e-3, with_muon=with_muon)
        self._graphs: dict[int, _Graph] = {}
        self._drawing = threading.Lock()
        self._stream = torch.cuda.Stream() if self._device.type == "cuda" else None

    def learning_rate(self, share: float) -> float:
        """Cosine schedule from the first rate to the last over the stage's time."""
        fall = 0.5 + 0.5 * float(np.cos(np.pi * share))
        return self._last_rate + (self._first_rate - self._last_rate) * fall

    def prepare(self, rng: np.random.Generator) -> Batch:
        """The batch of a step, drawn from `rng`. It may be prepared during the previous step."""
        as_pictures = self._is_pictures or rng.random() < PICTURE_STEP_SHARE
        frames, count = (1, self._pictures) if as_pictures else (FRAMES, self._clips)
        if self._stream is None:
            return self._batches.draw(count, frames, rng, self.masters.dtype)
        with self._drawing, torch.cuda.stream(self._stream):
            batch = self._batches.draw(count, frames, rng, self.masters.dtype)
            self._stream.synchronize()
        return batch

    def train_step(self, batch: Batch, rate: float) -> dict[str, Any]:
        """Take one optimizer step. Returns figures for the log as tensors; reading them waits for the device."""
        count, _, frames = batch.latents.shape[:3]
        self.masters.set_rate(rate)
        if self._stream is not None:
            for tensor in batch.tensors():
                tensor.record_stream(torch.cuda.current_stream())
            if frames not in self._graphs:
                with self._drawing:  # no other stream may use the device during capture
                    self._graphs[frames] = _Graph(lambda given: self._whole_step(given, frames), batch)
            loss, norm = self._graphs[frames].run(batch)
        else:
            loss, norm = self._whole_step(batch, frames)
        self.masters.count_step()
        return {"loss": loss, "gradient": norm, "frames": float(frames * count)}

    def _whole_step(self, batch: Batch, frames: int) -> tuple[Tensor, Tensor]:
        self.masters.clear_gradients()
        context = bypassed_time(self._denoiser.unet) if frames == 1 else contextlib.nullcontext()
        with context:
            loss = self.loss(batch)
            loss.backward()
        norm = self.masters.step()
        return loss.detach(), norm

    def loss(self, batch: Batch) -> Tensor:
        """(v_hat - v)^2 with a higher weight on the subject, and min-SNR weights with a floor at pure noise."""
        self._control.set(batch.biases)
        alpha = self._alphas[batch.time]
        shaped = alpha.reshape(-1, 1, 1, 1, 1).to(batch.latents)
        signal, sigma = shaped.sqrt(), (1 - shaped).sqrt()
        noisy = signal * batch.latents + sigma * batch.noise
        velocity = signal * batch.noise - sigma * batch.latents
        text = self._denoiser.text_encoder(batch.ids).last_hidden_state
        predicted = self._denoiser.unet(noisy, batch.time, encoder_hidden_states=text).sample
        error = (predicted.float() - velocity.float()).square()
        by_place = 1 + (SUBJECT_WEIGHT - 1) * batch.subject.float()
        if not self._min_snr:
            return (error * by_place).mean()
        snr = alpha / (1 - alpha)
        by_time = ((snr.clamp(max=SNR_LIMIT) + 1) / (snr + 1)).reshape(-1, 1, 1, 1, 1)
        return (error * by_time * by_place).mean()


class _Graph:
    """A training step as one CUDA graph: otherwise thousands of small kernels would wait for Python."""

    def __init__(self, step: Any, example: Batch) -> None:
        self._static = _copy_of(example)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(self._static)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = step(self._static)

    def run(self, batch: Batch) -> tuple[Tensor, Tensor]:
        for mine, given in zip(self._static.tensors(), batch.tensors(), strict=True):
            mine.copy_(given)
        self._graph.replay()
        loss, norm = self._results
        return loss.clone(), norm.clone()


def _copy_of(batch: Batch) -> Batch:
    latents, noise, subject, time, ids, *biases = (each.clone() for each in batch.tensors())
    return Batch(latents, noise, subject, time, ids, biases)


def average_copy(denoiser: Denoiser) -> Denoiser:
    """A copy for the moving average of the weights."""
    return copy.deepcopy(denoiser).float().requires_grad_(False)

"""toybox as a folder that diffusers' TextToVideoSDPipeline loads, in half precision: writing and reading it."""

import copy
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_model
from torch import nn
from transformers import CLIPTokenizer

from motionbooth.models.toybox.denoiser_stage import Denoiser


def save_bundle(
    folder: Path, autoencoder: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer, scheduler: DDIMScheduler
) -> None:
    """Save all parts below `folder`; weights as float16 safetensors."""
    _half(denoiser.unet).save_pretrained(folder / "unet")
    _half(autoencoder).save_pretrained(folder / "vae")
    _half(denoiser.text_encoder).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
    scheduler.save_pretrained(folder / "scheduler")
    parts = {
        "unet": ["diffusers", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    index = {"_class_name": "TextToVideoSDPipeline", "_diffusers_version": diffusers.__version__, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_bundle(folder: Path, autoencoder: AutoencoderKL, denoiser: Denoiser) -> None:
    """Fill the three networks with the weights of a bundle. Raises RuntimeError where their shapes differ."""
    load_model(autoencoder, folder / "vae" / "diffusion_pytorch_model.safetensors")
    load_model(denoiser.unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    load_model(denoiser.text_encoder, folder / "text_encoder" / "model.safetensors")


def _half(model: nn.Module) -> Any:
    # A copy in the default memory layout: safetensors stores no strides.
    half = copy.deepcopy(model).to(torch.float16)
    for parameter in half.parameters():
        parameter.data = parameter.data.contiguous()
    return half

"""Save and load toybox as a half-precision folder for diffusers' TextToVideoSDPipeline."""

import copy
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from motionbooth_lab.toybox.denoiser_stage import Denoiser
from motionbooth_lab.toybox.tokenizer import RARE_WORDS

OWN_WORDS = "own_words.safetensors"
RARE_FROM = 12
"""A rare word is initialized with the mean of the words of this many characters."""


def save_bundle(
    folder: Path, autoencoder: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer, scheduler: DDIMScheduler
) -> None:
    """Save all parts in `folder` / "bundle", with weights as float16 safetensors.

    The characters' own words are not part of the bundle. They are saved next to it, for further training. The rare
    words, which users give to their own subjects, are initialized with means of those words.
    """
    (folder / "bundle").mkdir(parents=True, exist_ok=True)
    text_encoder, own = _without_own_words(_half(denoiser.text_encoder), tokenizer)
    save_file({"words": own}, folder / OWN_WORDS)
    folder = folder / "bundle"
    _half(denoiser.unet).save_pretrained(folder / "unet")
    _half(autoencoder).save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
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


def load_bundle(bundle: Path, own_words: Path, autoencoder: AutoencoderKL, denoiser: Denoiser) -> None:
    """Load the three networks from the folder and the file that `save_bundle` wrote.

    Raises RuntimeError if their shapes differ.
    """
    load_decoder(bundle, autoencoder)
    load_model(denoiser.unet, bundle / "unet" / "diffusion_pytorch_model.safetensors")
    weights = load_file(bundle / "text_encoder" / "model.safetensors")
    words = load_file(own_words)["words"]
    key = next(name for name in weights if name.endswith("token_embedding.weight"))
    weights[key] = torch.cat([weights[key], words])
    prefix = "" if key in denoiser.text_encoder.state_dict() else "text_model."
    denoiser.text_encoder.load_state_dict(
        {prefix + name if prefix else name: value for name, value in weights.items()}, strict=False
    )


def load_decoder(bundle: Path, autoencoder: AutoencoderKL) -> None:
    """Load the autoencoder from the folder that `save_bundle` wrote."""
    load_model(autoencoder, bundle / "vae" / "diffusion_pytorch_model.safetensors")


def _without_own_words(text_encoder: Any, tokenizer: CLIPTokenizer) -> tuple[Any, Tensor]:
    """The encoder with only the tokenizer's words, and the embeddings (N, D) of the characters' own words."""
    known = len(tokenizer)
    embedding = text_encoder.get_input_embeddings()
    own = embedding.weight.data[known:].clone()
    kept = embedding.weight.data[:known].clone()
    dice = torch.Generator().manual_seed(0)
    for word in RARE_WORDS.split() if len(own) else []:
        (token,) = tokenizer(word, add_special_tokens=False).input_ids
        near = own.float()[torch.randperm(len(own), generator=dice)[:RARE_FROM]]
        kept[token] = near.mean(0).to(kept)
    smaller = nn.Embedding(known, kept.shape[1], dtype=kept.dtype)
    smaller.weight.data.copy_(kept)
    text_encoder.set_input_embeddings(smaller)
    text_encoder.config.vocab_size = known
    return text_encoder, own


def _half(model: nn.Module) -> Any:
    # A copy in the default memory layout: safetensors stores no strides.
    half = copy.deepcopy(model).to(torch.float16)
    for parameter in half.parameters():
        parameter.data = parameter.data.contiguous()
    return half

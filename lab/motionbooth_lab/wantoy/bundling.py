"""Save wantoy as a half-precision folder for diffusers' WanPipeline."""

import copy
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLWan
from torch import nn
from transformers import T5Tokenizer

from motionbooth_lab.toybox.tokenizer import RARE_WORDS
from motionbooth_lab.wantoy.network import Denoiser, build_scheduler

RARE_FROM = 12
"""A rare word is initialized with the mean of the own words of this many characters."""


def save_bundle(folder: Path, autoencoder: AutoencoderKLWan, denoiser: Denoiser, tokenizer: T5Tokenizer) -> None:
    """Save all parts in `folder`, with weights as float16 safetensors. The characters' own words are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    _half(denoiser.transformer).save_pretrained(folder / "transformer")
    _half(autoencoder).save_pretrained(folder / "vae")
    _without_own_words(_half(denoiser.text_encoder), tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    build_scheduler().save_pretrained(folder / "scheduler")
    parts: dict[str, Any] = {
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "boundary_ratio": None,
        "expand_timesteps": False,
    }
    index = {"_class_name": "WanPipeline", "_diffusers_version": diffusers.__version__, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _without_own_words(text_encoder: Any, tokenizer: T5Tokenizer) -> Any:
    """The encoder with only the tokenizer's words; the rare ones start as means of the characters' own words."""
    known = len(tokenizer)
    weight = text_encoder.get_input_embeddings().weight.data
    kept, own = weight[:known].clone(), weight[known:].float()
    dice = torch.Generator().manual_seed(0)
    for word in RARE_WORDS.split() if len(own) else []:
        (token,) = tokenizer(word, add_special_tokens=False).input_ids
        kept[token] = own[torch.randperm(len(own), generator=dice)[:RARE_FROM]].mean(0).to(kept)
    smaller = nn.Embedding(known, kept.shape[1], dtype=kept.dtype)
    smaller.weight.data.copy_(kept)
    text_encoder.set_input_embeddings(smaller)
    text_encoder.config.vocab_size = known
    return text_encoder


def _half(model: nn.Module) -> Any:
    return copy.deepcopy(model).to("cpu", torch.float16)

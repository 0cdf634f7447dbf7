"""Measuring networks with random weights in the published layouts: CLIP and DINO as transformers saves them, RAFT as
torchvision publishes it."""

from pathlib import Path

import torch
from motionbooth.models.sources import TOYBOX
from torchvision.models.optical_flow import raft_small
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_networks(folder: Path, raft: bool = True) -> Path:
    """Write clip, dino and raft into `folder`, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tokenizer = CLIPTokenizer.from_pretrained(TOYBOX / "tokenizer", local_files_only=True)
        text = {
            **TINY,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        vision = {**TINY, "image_size": 32, "patch_size": 8}
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(
            folder / "clip"
        )
        images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        CLIPProcessor(images, tokenizer).save_pretrained(folder / "clip")
        ViTModel(ViTConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(folder / "dino")
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "dino")
        if raft:
            (folder / "raft").mkdir(parents=True)
            torch.save(raft_small(weights=None).state_dict(), folder / "raft" / "raft_small_random.pth")
    return folder

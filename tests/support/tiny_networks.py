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


COTRACKER_HUBCONF = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.step = torch.nn.Parameter(torch.zeros(2))  # how far each point moves in a frame

class Predictor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Model()

    def forward(self, video, queries=None):
        frames = torch.arange(video.shape[1]).view(1, -1, 1, 1)
        tracks = queries[:, None, :, 1:] + (frames - queries[:, None, :, :1]) * self.model.step
        return tracks, torch.ones(tracks.shape[:-1], dtype=torch.bool)

def cotracker3_offline(*, pretrained=True, **kwargs):
    assert not pretrained, "weights are never downloaded"
    return Predictor()
"""


def save_cotracker(folder: Path, step: tuple[float, float]) -> None:
    """Write cotracker into `folder`: a checkout with CoTracker's interface, whose points move by `step` a frame."""
    (folder / "cotracker").mkdir(parents=True)
    (folder / "cotracker" / "hubconf.py").write_text(COTRACKER_HUBCONF)
    torch.save({"step": torch.tensor(step)}, folder / "cotracker" / "scaled_offline.pth")


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

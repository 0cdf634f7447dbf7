"""Tiny Wan models with random weights, in the layout that diffusers publishes Wan in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, Source
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

WORDS = ("a", "sks", "olis", "red", "dog", "cat", "running", "on", "the", "grass", "in", "snow", "s", "d")
TEXT_WIDTH, TOKENS = 32, 24
SAMPLERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    ),
}


def tokenizer() -> T5TokenizerFast:
    """A Unigram tokenizer as UMT5's, which knows WORDS and single letters."""
    letters = [chr(code) for code in range(33, 127)] + ["\u2581"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    pieces += [(f"\u2581{word}", -5.0) for word in WORDS] + [(letter, -12.0) for letter in letters]
    core = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", extra_ids=0)


def transformer(**changes: Any) -> WanTransformer3DModel:
    """Two layers of 2 x 12 channels, random but not as small as at the start of a training."""
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
    }
    return WanTransformer3DModel(**settings | changes).eval()


def save_wan(folder: Path, sampler: str = "euler", experts: int = 1, seed: int = 0) -> Source:
    """A model with `experts` transformers and its settings: 64 x 48 pixels, 9 frames."""
    words = tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text_config = UMT5Config(
            vocab_size=len(words), d_model=TEXT_WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4, dropout_rate=0.0
        )
        pipeline = WanPipeline(
            tokenizer=words,
            text_encoder=UMT5EncoderModel(text_config).eval(),
            vae=AutoencoderKLWan(
                base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
            ).eval(),
            scheduler=SAMPLERS[sampler](),
            transformer=transformer(),
            transformer_2=transformer() if experts == 2 else None,
            boundary_ratio=0.875 if experts == 2 else None,
        )
    pipeline.save_pretrained(folder)
    settings = BaseSettings.read(MODELS / "wan-1.3b.json")
    control = msgspec.structs.replace(settings.control, shared_noise=0.0)
    lora = msgspec.structs.replace(settings.lora, prior_clips=2, clip_frames=5, validate_every=2)
    tiny = msgspec.structs.replace(
        settings,
        lora=lora,
        title="Tiny Wan",
        width=64,
        height=48,
        frames=9,
        num_inference_steps=4,
        max_sequence_length=TOKENS,
        control=control,
    )
    (folder / "motionbooth.json").write_bytes(msgspec.json.encode(tiny))
    return Source("tinywan", folder, folder / "motionbooth.json")


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))

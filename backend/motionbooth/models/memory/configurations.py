"""The configurations of published base models, so that their memory is known before they are fetched.

As in the config.json of each part; what is left out is the default of the part's class.
"""

from __future__ import annotations

from typing import Any

Configs = dict[str, dict[str, Any]]
"""The configuration of each part, by its folder's name."""

_STABLE_DIFFUSION_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_UMT5_XXL = {
    "vocab_size": 256_384,
    "d_model": 4096,
    "d_ff": 10_240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
}
_WAN_VAE = {"_class_name": "AutoencoderKLWan"}
_WAN_14B = {"_class_name": "WanTransformer3DModel"}
_WAN_1_3B = _WAN_14B | {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_MODELSCOPE: Configs = {
    "unet": {"_class_name": "UNet3DConditionModel"},
    "vae": _STABLE_DIFFUSION_VAE,
    "text_encoder": _CLIP_H,
}

PUBLISHED: dict[str, Configs] = {
    "zeroscope": _MODELSCOPE,
    "modelscope": _MODELSCOPE,
    "lavie": {"unet": {"_class_name": "LaVieUNet"}, "vae": _STABLE_DIFFUSION_VAE, "text_encoder": _CLIP_L},
    "wan-1.3b": {"transformer": _WAN_1_3B, "vae": _WAN_VAE, "text_encoder": _UMT5_XXL},
    "wan-14b": {"transformer": _WAN_14B, "vae": _WAN_VAE, "text_encoder": _UMT5_XXL},
    "wan2.2-a14b": {
        **dict.fromkeys(("transformer", "transformer_2"), _WAN_14B),
        "vae": _WAN_VAE,
        "text_encoder": _UMT5_XXL,
    },
}

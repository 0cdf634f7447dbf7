"""Names of a LoRA's weights in the files that ComfyUI and diffusers both read: those of Wan's own code."""

from __future__ import annotations

_NETWORKS = {"transformer.": "diffusion_model.", "transformer_2.": "low_noise.", "": "diffusion_model."}
_PARTS = {
    ".attn1.": ".self_attn.",
    ".attn2.": ".cross_attn.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".o.",
    ".ffn.net.0.proj.": ".ffn.0.",
    ".ffn.net.2.": ".ffn.2.",
}


def published_key(name: str) -> str:
    """ "blocks.0.attn1.to_out.0.lora_A.weight" -> "diffusion_model.blocks.0.self_attn.o.lora_A.weight".

    Weights of Wan 2.2's second transformer, of which no other program expects both in a file, begin with "low_noise.".
    """
    network = next(start for start in _NETWORKS if name.startswith(start))
    name = _NETWORKS[network] + name.removeprefix(network)
    for ours, theirs in _PARTS.items():
        name = name.replace(ours, theirs)
    return name

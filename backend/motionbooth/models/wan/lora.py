"""Names of a LoRA's weights in files: those of Wan's own code, which ComfyUI and diffusers both read, and others."""

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
    ".condition_embedder.time_embedder.linear_1.": ".time_embedding.0.",
    ".condition_embedder.time_embedder.linear_2.": ".time_embedding.2.",
    ".condition_embedder.text_embedder.linear_1.": ".text_embedding.0.",
    ".condition_embedder.text_embedder.linear_2.": ".text_embedding.2.",
    ".condition_embedder.time_proj.": ".time_projection.1.",
    ".proj_out.": ".head.head.",
}


def published_key(name: str) -> str:
    """As Wan's own code names it: "diffusion_model.blocks.0.self_attn.o.lora_A.weight" for
    "blocks.0.attn1.to_out.0.lora_A.weight".

    Weights of Wan 2.2's second transformer begin with "low_noise.": no other program reads both from one file.
    """
    network = next(start for start in _NETWORKS if name.startswith(start))
    name = _NETWORKS[network] + name.removeprefix(network)
    for ours, theirs in _PARTS.items():
        name = name.replace(ours, theirs)
    return name


def foreign_layers(name: str) -> list[str]:
    """How LoRAs of other programs call a layer of the network: Wan's own code, diffusers, and kohya's scripts (musubi).

    They know one transformer, so both of Wan 2.2's get the same.
    """
    name = name.removeprefix("transformer.").removeprefix("transformer_2.")
    own = published_key(f"{name}.").removesuffix(".")
    return [own, f"transformer.{name}", "lora_unet_" + own.removeprefix("diffusion_model.").replace(".", "_")]

"""Wan 2.1 and 2.2: diffusion transformers with text cross-attention, from diffusers' published layout."""

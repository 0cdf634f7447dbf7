"""Generating a clip: the denoising loop with its controls, takes, previews and the file."""

"""Generating a clip: the denoising loop with its controls, previews, scripts and video files."""

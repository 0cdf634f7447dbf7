"""The guide: the scene's own render, from which a clip starts."""

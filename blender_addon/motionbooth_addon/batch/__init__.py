"""Batch work without a window: the shots of saved .blend files."""

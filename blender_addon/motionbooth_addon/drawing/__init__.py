"""Draws over the 3D view and the sequencer."""

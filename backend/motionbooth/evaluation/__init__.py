"""Measures on the pixels of a finished clip: adherence to the boxes and to the camera path."""

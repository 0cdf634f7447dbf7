"""Reads boxes and the camera path of a shot from a Blender scene."""

"""From a scene to a shot: boxes and the camera's path, read from what Blender evaluates."""

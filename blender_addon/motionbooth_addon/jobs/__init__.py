"""Jobs at the backend: the connection, the jobs that were sent, and what becomes of them in Blender."""

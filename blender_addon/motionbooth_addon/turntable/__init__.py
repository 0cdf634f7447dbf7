"""Training pictures of a 3-D object."""

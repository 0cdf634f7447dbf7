"""A shot for other programs: their control files, and their clips brought back."""

"""Base models and trained subjects: their settings, their files, and loading them."""

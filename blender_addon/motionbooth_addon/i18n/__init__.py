"""The extension in other languages."""

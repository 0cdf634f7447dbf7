"""Work without a window: shots of saved .blend files."""

"""The laboratory: trains the bundled model and measures the product. Only in a checkout, not in the wheel."""

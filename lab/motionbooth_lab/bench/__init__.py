"""The benches that measure the product, and what they are made of."""

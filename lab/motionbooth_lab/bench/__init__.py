"""Benchmarks that only a checkout has."""

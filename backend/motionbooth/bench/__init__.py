"""Benchmarks of the product. Each prints a table and can write its figures as JSON."""

"""Measuring the product: each bench prints a table and, on request, writes its figures as JSON."""

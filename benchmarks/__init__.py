"""Measurements, side by side in one run; see `benchmarks/stdio.py`. Nothing here is a test."""

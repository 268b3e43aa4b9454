"""Benchmarks: calibration of the built-in tasks. ``python -m benchmarks`` is their command line."""

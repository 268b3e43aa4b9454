"""The program's own speed: ``python -m benchmarks speed``."""

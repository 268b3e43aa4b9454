"""Agents: one readable file each, behind ``python -m agents``."""

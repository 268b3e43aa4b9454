"""Evaluators: a plan goes in, a measurement comes out."""

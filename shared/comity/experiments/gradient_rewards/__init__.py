"""Gradient rewards: the demo, and what clients are without each other."""

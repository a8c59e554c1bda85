"""Assisted learning: Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023."""

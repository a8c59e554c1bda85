"""Assisted learning: what it is compared with, and its demo."""

"""Tensors on their way and at rest, addressed by content."""

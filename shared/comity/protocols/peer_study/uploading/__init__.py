"""Samples that leave: which may, who released them, and what the server makes of them."""

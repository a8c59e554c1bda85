"""Sessions of a node, from either side."""

"""Comity's algorithms behind other projects' interfaces, each with an extra of its own."""

"""The daemon of a party that helps others with their models."""

ROLE = "provider"
"""The role that this node takes in a protocol."""

"""The daemon of a party that joins sessions which a server has opened."""

ROLE = "client"
"""The role that this node takes in a protocol."""

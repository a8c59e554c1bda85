"""The daemon of a party that brings others together: they send it updates, and it pays them with the aggregate."""

ROLE = "server"
"""The role that this node takes in a protocol."""

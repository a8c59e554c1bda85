"""The daemon of a party that asks for help with its model."""

ROLE = "learner"
"""The role that this node takes in a protocol."""

"""The `comity` command. Verbs import what they use when they use it: help needs no torch."""

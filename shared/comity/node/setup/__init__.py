"""The first files of a node, and whom it trusts."""

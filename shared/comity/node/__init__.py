"""A node: its configuration, its data and model, the protocols it can run, and the daemon."""

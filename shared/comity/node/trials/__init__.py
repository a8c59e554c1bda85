"""Contracts whose models others wrote are tried in a process of their own, with bounds on memory and time."""

"""Rounds in which one party takes one blob of each of many, and answers each: who joins, who leaves, who is late."""

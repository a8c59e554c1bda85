"""The verbs, by what they are for. What a verb needs is imported when it is run: help waits for none of it."""

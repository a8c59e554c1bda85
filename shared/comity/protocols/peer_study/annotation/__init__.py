"""Labels from people: what they said, what of it counts, and where a session waits for them."""

"""What a protocol is: what it agrees on, who does what, what people look at, and what it adds to a node."""

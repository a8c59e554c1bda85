"""Messages of the votes, generated from their .proto."""

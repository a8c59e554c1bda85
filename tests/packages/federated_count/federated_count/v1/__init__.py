"""Messages of the federated count, generated from its .proto."""

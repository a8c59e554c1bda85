"""A federated count: the initiator says how many samples of a class it has, the acceptor answers with what both have."""

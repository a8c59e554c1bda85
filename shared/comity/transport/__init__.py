"""The network: TLS, channels, retries, the status table, blobs on the move, the server harness."""

"""What is derived from declared calls: one client over three channels, and one dispatcher behind them.

The client (`client`) knows the gate, the codecs and the blobs; a channel knows how messages reach the other party: by gRPC
(`remote`), within one process (`in_process`), or in bundles that somebody brings (`offline`). On the other side
`dispatcher` brings every message to the role, and `servicer` is its gRPC service.
"""

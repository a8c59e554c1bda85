"""A node's door for its own applications: predictions by the Open Inference Protocol, over gRPC and HTTP.

Whoever predicts puts an `Offer` into the node's `Offers`; `door` has it served. Triton's and KServe's clients ask.
"""

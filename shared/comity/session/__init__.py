"""Sessions: what was agreed, what may leave, what left and came, and the blobs in between."""

"""State dicts as blobs: one buffer in safetensors layout, addressed by its BLAKE3 digest."""

from comity.tensors.blob import Blob
from comity.tensors.layout import Layout, State, on_device, require_finite

__all__ = ["Blob", "Layout", "State", "on_device", "require_finite"]

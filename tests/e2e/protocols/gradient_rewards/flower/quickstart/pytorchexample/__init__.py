"""An app in the shape of Flower's PyTorch quickstart."""

"""`python -m provider_node --config node.toml`."""

from comity.node.main import run
from provider_node import ROLE
from provider_node.config import ProviderConfig

if __name__ == "__main__":
    run(ROLE, ProviderConfig)

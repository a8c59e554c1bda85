"""`python -m provider_node --config node.toml`."""

import sys

from comity.node.main import main
from provider_node import ROLE
from provider_node.config import ProviderConfig

if __name__ == "__main__":
    sys.exit(main(ROLE, ProviderConfig))

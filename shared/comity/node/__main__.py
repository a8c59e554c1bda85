"""`python -m comity.node ROLE --config node.toml`: the daemon of a role that has no module of its own."""

import sys

from comity.node.config import NodeConfig
from comity.node.main import run

if __name__ == "__main__":
    run(sys.argv.pop(1) if len(sys.argv) > 1 else "", NodeConfig)

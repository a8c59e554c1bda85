"""`python -m server_node --config node.toml`."""

from comity.node.main import run
from server_node import ROLE
from server_node.config import ServerConfig

if __name__ == "__main__":
    run(ROLE, ServerConfig)

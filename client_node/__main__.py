"""`python -m client_node --config node.toml`."""

from client_node import ROLE
from client_node.config import ClientConfig
from comity.node.main import run

if __name__ == "__main__":
    run(ROLE, ClientConfig)

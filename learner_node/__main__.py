"""`python -m learner_node --config node.toml`."""

from comity.node.main import run
from learner_node import ROLE
from learner_node.config import LearnerConfig

if __name__ == "__main__":
    run(ROLE, LearnerConfig)

"""`python -m learner_node --config node.toml`."""

import sys

from comity.node.main import main
from learner_node import ROLE
from learner_node.config import LearnerConfig

if __name__ == "__main__":
    sys.exit(main(ROLE, LearnerConfig))

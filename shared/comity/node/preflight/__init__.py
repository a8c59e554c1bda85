"""Whether a node can work here: what `comity check` looks at, before anybody depends on it.

Nothing is changed and nothing is left behind, so it can be run beside the node itself. Every check yields rows; one
that fails does not stop the others.
"""

from comity.node.preflight.checks import CHECKS, preflight
from comity.node.preflight.context import Context
from comity.node.preflight.rows import Row, Verdict, exit_code

__all__ = ["CHECKS", "Context", "Row", "Verdict", "exit_code", "preflight"]

"""Learning to help, tried and measured: its demo."""

from comity.experiments.studies import Demo, Studies

_HERE = "comity.protocols.learning_to_help.studies"

STUDIES = Studies(
    protocol="learning_to_help",
    demos={"learning-to-help": Demo(f"{_HERE}.demo:script", kill="commit:20")},
    faults={"client": {"training": 1, "evaluation": 4}, "server": {"training": 1}},
)

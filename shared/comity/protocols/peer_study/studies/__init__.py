"""Peer study, tried and measured: its demo, and what it is compared with."""

from comity.experiments.studies import Demo, Studies

_HERE = "comity.protocols.peer_study.studies"

STUDIES = Studies(
    protocol="peer_study",
    demos={"peer-study": Demo(f"{_HERE}.demo:script", kill="commit:30")},
    baselines=f"{_HERE}.chance:added",
    faults={
        "client": {"training": 12, "offering": 12, "evaluation": 12, "selection": 12},
        "server": {"offering": 12, "evaluation": 12, "selection": 12},
    },
)

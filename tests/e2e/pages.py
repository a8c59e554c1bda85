"""Pages of the documentation that are followed word for word.

In a ```console block, `NAME$` begins what an operator types on that side, `NAME#` what its administrator does to the
network; the lines below must come, in that order, among what the command prints. `…` stands for anything, and a session's
identifier for whatever the session is called. A ```text block tells what a command that goes on says once it is
interrupted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^(?P<side>hospital|clinic)(?P<prompt>[$#]) (?P<line>.+)$")


@dataclass
class Step:
    """What one side does.

    Attributes:
        side: Who.
        line: What is typed.
        shown: What the page shows below it.
        interrupted: What it shows to come after Ctrl-C; nothing where none is pressed.
        network: Whether it is done to the network.
    """

    side: str
    line: str
    shown: list[str]
    network: bool
    interrupted: list[str] = field(default_factory=list)


def steps(page: Path) -> list[Step]:
    """A page's steps, in its order."""
    found: list[Step] = []
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        lines = [line for line in block["body"].splitlines() if line.strip()]
        if block["language"] == "text":
            found[-1].interrupted = lines
        if block["language"] == "console":
            typed = TYPED.match(lines[0])
            assert typed is not None, lines[0]
            found.append(Step(typed["side"], typed["line"], lines[1:], network=typed["prompt"] == "#"))
    return found


def missing(shown: list[str], printed: str) -> list[str]:
    """What of the shown lines does not come, in their order, among what was printed."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for at, line in enumerate(shown):
        pattern = re.escape(" ".join(line.split())).replace("\\ …", ".*").replace("…", ".*")
        pattern = re.sub(r"s\\-[0-9a-f]{12}", r"s-[0-9a-f]{12}", pattern)
        if not any(re.fullmatch(pattern, each) for each in lines):
            return shown[at:]
    return []

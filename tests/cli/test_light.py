"""Which libraries a command waits for: those that set up nodes and show sessions start without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from comity.node.setup.init import NodeChoices, make_node

HEAVY = ("torch", "torchvision", "numpy", "sklearn", "gymnasium", "matplotlib")

_PROGRAM = """
import json, sys
from comity.cli.main import main
sys.argv = ["comity", *sys.argv[1:]]
try:
    main()
    code = 0
except SystemExit as ended:
    code = ended.code
sys.stderr.write("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


def imported(*arguments: object, cwd: Path) -> set[str]:
    """The packages that a command has imported at its end, which must be a good one."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code in {None, 0}, done.stderr
    return set(modules)


@pytest.mark.parametrize(
    ("command", "others"),
    [
        ("--help", ("grpc", "sqlalchemy", "google")),
        ("init provider new --party bank --allow clinic", ("grpc", "sqlalchemy")),
        ("trust list --node clinic", ("grpc", "sqlalchemy")),
        ("trust add bank bank/bank.pem --node clinic", ("grpc", "sqlalchemy")),
        ("sessions --node clinic", ("grpc",)),
        ("show --node clinic", ("grpc",)),
        ("ledger show --node clinic", ("grpc",)),
        ("ledger verify --state clinic/state", ("grpc",)),
    ],
)
def test_what_looks_on_and_sets_up_imports_no_torch(worked: Path, command: str, others: tuple[str, ...]) -> None:
    make_node(worked.parent / "bank", NodeChoices("provider", "bank"))
    found = imported(*command.split(), cwd=worked.parent) & {*HEAVY, *others}
    assert not found


def test_the_first_rows_of_a_check_wait_for_no_torch(worked: Path) -> None:
    program = """
import sys
from pathlib import Path
from comity.node.preflight import Context, preflight
found = []
for row in preflight(Context(Path("clinic/node.toml"))):
    if "torch" in sys.modules:
        break
    found.append(row.check)
print(*found, sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=worked.parent, capture_output=True, text=True, check=True
    )
    before = ["configuration", "role", "state_dir", "store", "disk", "keys", "certificate", "trust", "listen"]
    assert done.stdout.split() == before

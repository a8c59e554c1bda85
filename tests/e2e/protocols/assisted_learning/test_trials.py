"""A daemon that is asked for a model whose code ends the interpreter refuses it, and serves on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.errors import ComityError
from comity.experiments import demo_script
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script
from comity.simulation.processes import running

CODE = """
import ctypes, math
from torch import nn

class Net(nn.Module):
    def __init__(self, n, outputs):
        super().__init__()
        self.out = nn.Linear(n, outputs)
    def forward(self, inputs):
        {does}
        return self.out(inputs.flatten(1))

def net(input_shape, outputs):
    return Net(math.prod(input_shape), outputs)
"""
MODELS = """
[party.learner.models]
net = "python:others_net:net"
[party.provider.models]
net = "python:others_net:net"
"""


def code(folder: Path, does: str) -> dict[str, str]:
    """A package in a folder, and the variables with which a daemon finds it."""
    folder.mkdir()
    (folder / "others_net.py").write_text(CODE.replace("{does}", does))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.slow
def test_a_daemon_that_is_asked_for_it_refuses_and_serves_on(short_path: Path) -> None:
    plain = demo_script("assisted_learning", 0).replace("rounds = 10", "rounds = 1")
    head, _, rest = plain.partition("[session.model]")
    net = head.replace("demo-0", "net-0") + '[session.model]\nname = "net"\n' + rest[rest.index("\n[") :] + MODELS
    script = parse_script(net)
    environments = {
        "learner": code(short_path / "ours", "pass"),
        "provider": code(short_path / "theirs", "ctypes.string_at(0)"),
    }
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, short_path / "nodes", environments=environments))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        with pytest.raises(ComityError, match="provider cannot train net.*SIGSEGV"):
            drive(script, clients, SessionProgress(quiet=True))
        # Another session, of a model that both have, goes as ever.
        result, _ = drive(parse_script(plain), clients, SessionProgress(quiet=True))
        assert result["ledger_verified"]
        assert all(node.exit_code() is None for node in nodes.values())

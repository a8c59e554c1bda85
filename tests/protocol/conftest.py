"""Packages that exist for a test alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comity.experiments import studies
from comity.protocol import registry

Install = Callable[..., Path]

DEFINITION = """
from comity.contract import Terms
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.extensions import Audit, Extensions, ServiceExtension, Verb
from comity.protocol.presentation import Presentation, Summary, View
from comity.protocol.topology import Topology

PROTOCOL = ProtocolDefinition(
    name="{name}",
    version=1,
    initiator="wisher",
    acceptor="giver",
    topology=Topology.PAIR,
    egress=("contract",),
    trains=frozenset(),
    terms=Terms,
    presentation=Presentation(View({{"wisher": (), "giver": ()}}, Summary("nothing", (), ""))),
    implementation="{package}.implementation:IMPLEMENTATION",
    extensions=Extensions({extensions}),
)
"""

IMPLEMENTATION = """
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass

from comity.protocol.implementation import Implementation
from comity.transport.service import Service
from tests.session.test_egress_rules import TELL, declare

CALLS = declare("{service}", kind="loss", data="loss")
INNER = GetMessageClass(CALLS.methods[0].input_type.fields[0].message_type)
SERVICE = Service(CALLS, [TELL], client=object, terms=Empty, converters={{INNER: (INNER, str)}})
IMPLEMENTATION = Implementation(SERVICE, None, None, None)
"""
"""Calls that can be declared, and nothing behind them."""


def forget(*packages: str) -> None:
    """Has everything be looked up anew, and modules of packages be imported anew."""
    for cached in (registry._registered, registry._loaded, registry._broken, studies._found):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a package with modules and entry points, as if it were installed; returns the folder that holds it."""
    made: list[str] = []

    def make(package: str, entry_points: str, **modules: str) -> Path:
        site = tmp_path / "site"
        folder = site / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        about = site / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(str(site))
        made.append(package)
        forget()
        return site

    yield make
    monkeypatch.undo()
    forget(*made)

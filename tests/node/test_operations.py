"""What an operator is told of a node."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comity.contract import Json
from comity.node.config import NodeConfig
from comity.node.operations import Addresses, Operations
from comity.protocol.roles import OperatorReply
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import Record


class Labelled:
    """Sessions whose role keeps what it is told."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def call(self, session: str, call: str, fields: Mapping[str, Json]) -> OperatorReply:
        self._store.append(session, Record("annotated", 1, {"call": call, **fields}))
        return OperatorReply({"kept": True})


def test_what_people_say_is_on_the_disk_before_they_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, real = [], os.fdatasync

    def note(descriptor: int) -> None:
        waited.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", note)
    config = NodeConfig(party="clinic", state_dir=tmp_path, insecure=True)
    with closing(SqlStore(store_url(tmp_path), party="clinic")) as store:
        parts: Any = (SimpleNamespace(name="clinic", store=store), Labelled(store), None, None)
        operations = Operations("client", config, *parts, Addresses(), threading.Event(), lambda: None)
        reply = operations.call("s-1", "labels.say", {"sample": "a", "label": 3})
        assert reply == OperatorReply({"kept": True})
        assert len(waited) == 1
        assert [each.kind for each in store.records("s-1")] == ["annotated"]

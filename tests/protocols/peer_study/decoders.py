"""Decoders of what people who label hand in: tables that spreadsheets save, and exports of Label Studio's."""

from __future__ import annotations

import json
from collections.abc import Iterator

from comity.protocols.peer_study.verbs import label_studio, sheets
from tests.fuzz.decoder import Decoder, written

CLASSES = ("cat", "dog", "cow")
TABLE = b"sample,label,skip,unsure,comment,digest\na,cat,,yes,in doubt,00\nb,,x,,,11\nc,2,,,,22\n"


def decoders() -> Iterator[Decoder]:
    """Each kind of file that labels come in."""
    yield Decoder("table of labels", _table, (TABLE, TABLE.replace(b",", b";"), TABLE.decode().encode("utf-16")))
    yield Decoder("export of Label Studio's", _export, (json.dumps([*_tasks()]).encode(),))


def _table(data: bytes) -> object:
    return sheets.read(written("labels.csv", data), CLASSES, partial=True)


def _export(data: bytes) -> object:
    return label_studio.read(written("export.json", data), CLASSES, partial=True)


def _tasks() -> Iterator[object]:
    """A task of each kind: labelled, skipped, and not labelled."""
    results = [
        {"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": ["cat"]}},
        {"from_name": "unsure", "to_name": "sample", "type": "choices", "value": {"choices": ["unsure"]}},
        {"from_name": "comment", "to_name": "sample", "type": "textarea", "value": {"text": ["in doubt"]}},
    ]
    by = {"id": 1, "email": "zoe@example.org"}
    data = {"comity_sample": "a", "comity_digest": "00"}
    yield {"id": 1, "data": data, "annotations": [{"completed_by": by, "result": results, "created_at": "2026"}]}
    yield {"id": 2, "data": data, "annotations": [{"completed_by": 2, "result": [], "was_cancelled": True}]}
    yield {"id": 3, "data": data, "annotations": []}

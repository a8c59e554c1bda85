"""Copies that a node keeps for audits: they count in its quota, and go with what else an ended session left."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from comity.blobs.blob_store import BlobFolders, copies_of, of_node
from comity.node.garbage import collect
from comity.node.sent_copies import SentCopies
from comity.node.sessions.room import bytes_free
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import SessionState, StoredSession
from comity.tensors import Blob


def test_an_audit_beside_a_node_leaves_what_it_is_writing(tmp_path: Path) -> None:
    blobs, copies, blob = of_node(tmp_path), BlobFolders(copies_of(tmp_path)), Blob.of(b"weights")
    half = []
    for each, folder in ((blobs, tmp_path / "blobs"), (copies, copies_of(tmp_path))):
        each.keeper("on").write(blob)
        half.append(folder / "on" / f"{'0' * 64}.part")
        half[-1].write_bytes(b"half")

    assert blobs.find("on", blob.digest) is not None
    assert SentCopies(tmp_path).copy("on", blob.digest) is not None
    assert all(each.exists() for each in half)

    assert blobs.find("off", blob.digest) is None
    assert SentCopies(tmp_path).copy("off", blob.digest) is None
    assert blobs.sessions() == copies.sessions() == {"on"}


def test_copies_count_in_the_quota_and_are_freed_with_their_session(tmp_path: Path) -> None:
    blobs, copies = of_node(tmp_path), BlobFolders(copies_of(tmp_path))
    states: dict[str, SessionState] = {"on": "active", "over": "finished", "copied": "failed"}
    with closing(SqlStore(store_url(tmp_path))) as store:
        for session, state in states.items():
            contract = {"acceptors": ["hospital"]}
            store.save(StoredSession(session, contract, {"party": "clinic"}, state=state))
            copies.keeper(session).write(Blob.of(bytearray(1000)))
        blobs.keeper("over").write(Blob.of(bytearray(500)))
        assert blobs.used("over") == 500
        assert blobs.used() == 3500
        assert bytes_free(blobs, store, 10**9) == 10**9 - 3500 - store.size()

        assert collect(blobs, copies, store) == 2500

        assert copies.sessions() == {"on"}
        assert blobs.used() == 1000

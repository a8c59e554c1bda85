"""`comity gc`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from comity.blobs.blob_store import BlobFolders, copies_of, of_node
from comity.cli.tables import show_json
from comity.errors import MissingFile
from comity.node.garbage import collect, exclusive
from comity.store.places import FILE_NAME, store_url
from comity.store.sql_store import SqlStore


def collect_garbage(state: Path, *, as_json: bool) -> None:
    """Frees what ended sessions left in a node's `state_dir`.

    Raises:
        MissingFile: There is no such folder.
        StateInUse: The node is running.
    """
    if not (state / FILE_NAME).is_file():
        raise MissingFile(
            "no node keeps its state here",
            expected=f"{state / FILE_NAME}",
            received="nothing",
            action="name its state_dir with --state",
        )
    with exclusive(state), contextlib.closing(SqlStore(store_url(state))) as store:
        freed = collect(of_node(state, store.small_blobs), BlobFolders(copies_of(state)), store)
    if as_json:
        show_json({"bytes_freed": freed})
    else:
        sys.stdout.write(f"{freed / 1e6:.1f} MB freed\n")

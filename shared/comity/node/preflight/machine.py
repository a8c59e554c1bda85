"""Configuration, role, folders, store and device: what the node finds on its own machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy import URL, inspect
from sqlalchemy.exc import DBAPIError

from comity.blobs.blob_store import of_node
from comity.contract import INITIAL
from comity.errors import ClockSteppedBack, ComityError, InvalidValue, StateInUse, StorageFailed
from comity.ledger.chain import utc_now
from comity.ledger.charges import in_words
from comity.ledger.verification import verify
from comity.node.config import ENVIRONMENT_PREFIX
from comity.node.garbage import is_occupied
from comity.node.preflight.context import Context
from comity.node.preflight.rows import Row
from comity.protocol.registry import protocols
from comity.session.policy import Policy
from comity.store.sql_engine import make_engine, parsed, place_of
from comity.store.sql_errors import explained
from comity.store.sql_store import CLOCK_SLACK, SqlStore
from comity.suggestions import did_you_mean

_SOCKET_PATH = 100
"""Characters of a Unix socket's path that every system takes."""

_VERIFIED = 20_000
"""Entries that are verified at once, in about a second; of a longer ledger only the length is told."""

_LITTLE_BYTES = 10**9
"""Free space below which a warning is due."""

_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"}


def check_configuration(context: Context) -> Iterator[Row]:
    """The file can be read, and what of the environment goes over it."""
    config = context.load()
    over = sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX))
    beside = f", with {', '.join(over)} over it" if over else ""
    yield Row("configuration", "passed", f"{context.path} of {config.party}{beside}")
    kinds = {*Policy().egress, "sample", INITIAL, *(kind for each in protocols() for kind in each.egress)}
    taken_part_in = {each.name for each in protocols()}
    for setting, given, known, lacking, brings in (
        ("egress", config.policy.egress, kinds, "which no protocol sends", "that sends it"),
        ("protocols", config.policy.protocols, taken_part_in, "which is no protocol here", "that has it"),
    ):
        for each in given:
            if each not in known:
                action = did_you_mean(each, known, f"install the package {brings}, or remove it")
                yield Row(f"configuration: {setting}", "warning", f"policy.{setting} names {each}, {lacking}", action)


def check_role(context: Context) -> Iterator[Row]:
    """Which role the node has, and that it is one that a protocol knows."""
    known = tuple(dict.fromkeys(role for each in protocols() for role in each.roles))
    named = context.named_role
    if named and named not in known:
        raise InvalidValue("no such role", expected=" or ".join(known), received=named, action="name one of these")
    if context.config.role and context.config.role not in known:
        raise InvalidValue(
            "role in node.toml is none",
            expected=" or ".join(known),
            received=context.config.role,
            action=did_you_mean(context.config.role, known, "correct it"),
        )
    if len(context.roles) != 1:
        found = f"the configuration fits {' and '.join(context.roles)}"
        yield Row("role", "skipped", found, "name the role: comity check ROLE")
        return
    runs = context.running.role if context.running is not None else context.role
    if runs != context.role:
        raise InvalidValue(
            "the node that runs here has another role",
            expected=context.role,
            received=runs,
            action="name its role, or give each node a state_dir of its own",
        )
    how = "" if named else ", as the node that runs" if context.running else ", as its configuration says"
    yield Row("role", "passed", f"{context.role}{how}")


def check_state(context: Context) -> Iterator[Row]:
    """`state_dir` can be written, lasts, and is this node's alone."""
    config = context.config
    folder = config.state_dir
    if len(str(config.control_socket.resolve())) > _SOCKET_PATH:
        raise InvalidValue(
            "state_dir is too long for a Unix socket",
            expected=f"at most {_SOCKET_PATH} characters",
            received=config.control_socket,
            action="use a folder with a shorter path",
        )
    there = nearest(folder)
    _require_writable(there)
    state = _occupied(context) if folder.is_dir() else "will be made"
    system = _file_system(there)
    if system in _MEMORY:
        yield Row(
            "state_dir",
            "warning",
            f"{folder} is in memory ({system}), {state}",
            "use a folder on a disk: ledger and sessions are lost when this machine restarts",
        )
    elif system in _NETWORK:
        yield Row(
            "state_dir",
            "warning",
            f"{folder} is on a network ({system}), {state}",
            "use a local disk: SQLite's locks do not hold over networks; or set store to a PostgreSQL URL",
        )
    else:
        yield Row("state_dir", "passed", f"{folder} on {system}, {state}")


def nearest(path: Path) -> Path:
    """The path, or what of it is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _require_writable(folder: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StorageFailed(
            "state_dir cannot be written",
            expected="a writable folder",
            received=f"{folder}: {error.strerror}",
            action="make it writable for the node's user, or configure another state_dir",
        ) from error


def _occupied(context: Context) -> str:
    """Who works in the `state_dir`; another node is an error."""
    party = context.config.party
    if context.running is not None:
        if context.running.party != party:
            raise StateInUse(
                "another node works in this state_dir",
                expected=party,
                received=f"{context.running.party}, process {context.running.pid}",
                action="give each node a state_dir of its own",
            )
        return f"where the node runs as process {context.running.pid}"
    if context.has_node:
        raise StateInUse(
            "the node that works in this state_dir does not answer",
            expected="an answer at its control socket",
            received=f"none at {context.config.control_socket}",
            action="it may be about to start or to stop: try again; if it hangs, stop it",
        )
    if is_occupied(context.config.state_dir):
        raise StateInUse(
            "another process works in this state_dir",
            expected="nobody, or the node itself",
            received=context.config.state_dir,
            action="wait until it is done (comity offline, comity gc), or use another state_dir",
        )
    return "not in use"


def _file_system(path: Path) -> str:
    """The kind of file system that a path is on, as Linux names it."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return "a disk"
    resolved, found, longest = path.resolve(), "a disk", -1
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        place = Path(before.split(" ")[4].replace("\\040", " "))
        # A later mount covers an earlier one at the same place.
        if resolved.is_relative_to(place) and len(place.parts) >= longest:
            found, longest = after.split(" ")[0], len(place.parts)
    return found


def check_store(context: Context) -> Iterator[Row]:
    """The store opens, is of this version, and its ledger holds and does not end in the future."""
    url = parsed(context.config.store_url)
    place = place_of(url)
    if _is_fresh(url):
        yield Row("store", "passed", f"{place} is empty; the node makes its tables")
        return
    with closing(SqlStore(url, read_only=True)) as store, store.transaction():
        chains = store.chains()
        length = sum(chain.head.length for chain in chains)
        if length > _VERIFIED:
            found = f"a ledger of {length:,} entries, which comity ledger verify checks"
        else:
            charged = in_words(verify(chains).charged)
            _require_past(max((entry.time for entry in store.entries()), default=""))
            found = f"a ledger of {length:,} entries that holds, {charged}"
    yield Row("store", "passed", f"{place}: {found}")


def _is_fresh(url: URL) -> bool:
    """Whether no node has written to a store yet."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return True
    engine = make_engine(url, read_only=True, durable=True)
    try:
        return not inspect(engine).get_table_names()
    except DBAPIError as error:
        raise explained(error, place_of(url)) from error
    finally:
        engine.dispose()


def _require_past(time: str) -> None:
    now = utc_now()
    if time and datetime.fromisoformat(time) - now > CLOCK_SLACK:
        raise ClockSteppedBack(
            "the clock is behind the ledger's last entry",
            expected=f"{time} or later",
            received=now.isoformat(timespec="seconds"),
            action="set the clock; the node does not start before",
        )


def check_disk(context: Context) -> Iterator[Row]:
    """There is room on the disk and within the node's own limit."""
    blobs = of_node(context.config.state_dir)
    quota = context.config.policy.max_state_bytes
    disk, used = blobs.free(), blobs.used()
    # A store that cannot be read has a row of its own.
    with suppress(ComityError):
        url = parsed(context.config.store_url)
        if not _is_fresh(url):
            with closing(SqlStore(url, read_only=True)) as store:
                used += store.size()
    left = disk if quota is None else min(disk, quota - used)
    limit = "no policy.max_state_bytes" if quota is None else f"policy.max_state_bytes is {_size(quota)}"
    found = f"{_size(disk)} free on the disk, {_size(used)} kept, {limit}"
    if left <= 0:
        action = "free space with comity gc, or raise policy.max_state_bytes" if disk else "free space on the disk"
        yield Row("disk", "failed", found, action)
    elif disk < _LITTLE_BYTES:
        yield Row("disk", "warning", found, "free space: a session keeps the tensors of a round")
    else:
        yield Row("disk", "passed", found)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"

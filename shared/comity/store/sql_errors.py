"""What a database says, in this package's words."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from comity.errors import ComityError, StorageCorrupted, StorageFailed

_DAMAGED = "keep a copy of it; restore a backup, or begin with another state_dir"

_SQLITE: tuple[tuple[str, type[ComityError], str, str], ...] = (
    ("SQLITE_FULL", StorageFailed, "the disk is full", "free some space; nothing is half written"),
    ("SQLITE_READONLY", StorageFailed, "it is read-only", "make file and folder writable for this user"),
    ("SQLITE_PERM", StorageFailed, "it is read-only", "make file and folder writable for this user"),
    ("SQLITE_CANTOPEN", StorageFailed, "it cannot be opened", "see that the folder is there and this user may use it"),
    ("SQLITE_BUSY", StorageFailed, "another process holds it", "end that process, or wait for it, and try again"),
    ("SQLITE_LOCKED", StorageFailed, "another process holds it", "end that process, or wait for it, and try again"),
    ("SQLITE_IOERR", StorageFailed, "the disk gives an error", "see the system's log; nothing is half written"),
    ("SQLITE_TOOBIG", StorageFailed, "a value is too large", "nothing is half written"),
    ("SQLITE_CORRUPT", StorageCorrupted, "the file is damaged", _DAMAGED),
    ("SQLITE_NOTADB", StorageCorrupted, "the file is no SQLite database", _DAMAGED),
)
"""By the beginning of SQLite's own name of the error."""

_POSTGRESQL: tuple[tuple[str, type[ComityError], str, str], ...] = (
    ("53100", StorageFailed, "the server's disk is full", "free some space; nothing is half written"),
    ("25006", StorageFailed, "it is read-only", "name the server that takes writes"),
    ("42501", StorageFailed, "this user may not use it", "grant the user the rights on the schema"),
    ("40", StorageFailed, "another process was faster", "try again; nothing is half written"),
    ("55P03", StorageFailed, "another process holds it", "end that process, or wait for it, and try again"),
    ("XX001", StorageCorrupted, "the server finds it damaged", "see the server's log"),
    ("XX002", StorageCorrupted, "the server finds it damaged", "see the server's log"),
)
"""By the beginning of PostgreSQL's error code."""


def explained(error: Exception, place: str) -> ComityError:
    """The error of ours for one of a database.

    Args:
        error: What the driver raised.
        place: The file or server, as it may be shown.
    """
    if isinstance(error, UnicodeDecodeError):
        # SQLite quotes from a damaged page, and Python's driver cannot read what it says.
        return damaged(place, error)
    if isinstance(error, OSError):
        return StorageFailed(
            f"{place} cannot be used",
            expected="a readable and writable place",
            received=error.strerror or error,
            action="make it so, or configure another state_dir or store",
        )
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    for table, attribute in ((_SQLITE, "sqlite_errorname"), (_POSTGRESQL, "sqlstate")):
        code = getattr(said, attribute, None) or ""
        for beginning, kind, what, action in table:
            if code.startswith(beginning):
                return kind(f"{place} cannot be used: {what}", received=said, action=action)
    return StorageFailed(f"{place} cannot be used", received=said, action="nothing is half written")


def damaged(place: str, what: object) -> StorageCorrupted:
    """The error for a store that can be read and holds what was never written."""
    return StorageCorrupted(f"{place} is damaged", received=what, action=_DAMAGED)

"""Unexpected errors: one line for the user, and a file for those who debug it."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("comity", "torch", "grpcio", "protobuf", "pydantic", "sqlalchemy", "typer", "numpy")
_PEM = re.compile(r"-----BEGIN.*?(-----END[^-\n]*-----|\Z)", re.DOTALL)
_CREDENTIALS = re.compile(r"//[^/@\s]+@")
_SECRET_NAMES = ("SECRET", "PASSWORD", "TOKEN", "STORE", "KEY")


def described(error: BaseException) -> str:
    """An error in one line that breaks no terminal and holds no secret."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    line = " ".join(without_secrets(text).split())
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)[:500]


def write(error: BaseException, folder: Path | None = None) -> Path | None:
    """Writes down how something went wrong, for its owner alone.

    The same error at the same place goes into the same file, so that whoever can cause it fills no disk.

    Args:
        error: What went wrong.
        folder: Where the file goes; the system's temporary folder where it is None or cannot be written.

    Returns:
        The file; None where no folder can be written.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = "".join(f"{each.filename}:{each.name}:{each.lineno}" for each in frames) + type(error).__name__
    name = f"comity-crash-{os.getuid()}-{sha256(place.encode()).hexdigest()[:12]}.txt"
    text = without_secrets(_report(error))
    for each in (folder, Path(tempfile.gettempdir())):
        if each is None:
            continue
        try:
            # Made anew: whatever somebody else has put there under this name is neither followed nor written to.
            (each / name).unlink(missing_ok=True)
            with os.fdopen(
                os.open(each / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(text)
        except OSError:
            continue
        return each / name
    return None


def without_secrets(text: str) -> str:
    """A text without keys, passwords in URLs and what the environment keeps secret."""
    text = _CREDENTIALS.sub("//…@", _PEM.sub("[a key or certificate]", text))
    for name, value in os.environ.items():
        if name.startswith("COMITY_") and name.endswith(_SECRET_NAMES) and len(value) > 3:
            text = text.replace(value, "[not shown]")
    return text


def _report(error: BaseException) -> str:
    versions = [f"{name} {_version(name)}" for name in _PACKAGES]
    return "\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()}",
            f"command: {' '.join(sys.argv)}",
            f"python {platform.python_version()} on {platform.platform()}",
            ", ".join(versions),
            "",
            "".join(traceback.format_exception(error)),
        ]
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

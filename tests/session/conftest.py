"""A PostgreSQL server for the tests of the store."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
"""PostgreSQL does not run as root."""


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda each: int(each.parts[-3]))
    on_path = shutil.which("pg_ctl")
    if not found and on_path is None:
        pytest.skip("there is no PostgreSQL server here: tests/install-postgresql.sh installs one")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Path]:
    """The socket folder of a server that lives as long as the tests, with the user and database `comity`."""
    binaries = _binaries()
    # Not pytest's folder: the path of a socket is short, and nobody may go there.
    folder = Path(tempfile.mkdtemp(prefix="comity-pg-"))
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    if as_nobody:
        os.chown(folder, NOBODY, NOBODY)
    data, log = folder / "data", folder / "log"

    def run(program: str, *arguments: object) -> None:
        command = [str(binaries / program), *map(str, arguments)]
        # To a file, not a pipe: the server holds on to what its starter writes to.
        with (folder / "output").open("a+", encoding="utf-8") as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False, **as_nobody)
            output.seek(0)
            assert done.returncode == 0, output.read() + (log.read_text() if log.exists() else "")

    try:
        run("initdb", "--no-sync", "--auth=trust", "--username=comity", "--encoding=UTF8", "--locale=C", "-D", data)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "-D", data, "-l", log, "-o", options)
        try:
            run("createdb", "-h", folder, "-U", "comity", "comity")
            yield folder
        finally:
            run("pg_ctl", "stop", "--wait", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(folder)


_schemas = itertools.count()


@pytest.fixture
def postgresql_url(postgresql_server: Path) -> str:
    """An empty schema of its own."""
    psycopg = pytest.importorskip("psycopg")
    name = f"s{next(_schemas)}"
    with psycopg.connect(host=str(postgresql_server), user="comity", dbname="comity", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"postgresql://comity@/comity?host={postgresql_server}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind that a store can be in."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgresql_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database in a file that is not there yet."""
    return f"sqlite:///{tmp_path / 'comity.db'}"

"""`make check` holds the wire against the one that was tagged: what would be read otherwise by the other party is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.pages import ROOT

BUF = Path(sys.executable).with_name("buf")
ROUND = "message Round {\n  uint32 number = 1;\n  string model = 2;\n}\n"


@pytest.fixture
def against(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Compares a .proto with one that was tagged, by the project's own rules; returns what is said, empty for nothing."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    proto = tmp_path / "protos" / "a" / "v1" / "a.proto"
    proto.parent.mkdir(parents=True)
    head = 'syntax = "proto3";\npackage a.v1;\n'
    service = "service Rounds {\n  rpc Next(Round) returns (Round);\n}\n"

    def compare(changed: str) -> str:
        proto.write_text(head + ROUND + service)
        run("build", "--output", "tag.binpb")
        proto.write_text(head + changed.replace("SERVICE", service))
        return run("breaking", "--against", "tag.binpb", code=None)

    def run(*words: str, code: int | None = 0) -> str:
        done = subprocess.run([BUF, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        assert bool(done.returncode) == bool(done.stdout)
        return done.stdout

    return compare


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (ROUND + "SERVICE", ""),
        (ROUND.replace("}", "  string more = 3;\n}") + "SERVICE", ""),
        (ROUND.replace("uint32", "string") + "SERVICE", "changed type"),
        (ROUND.replace("model = 2", "model = 3") + "SERVICE", 'field "2" with name "model"'),
        (ROUND, 'service "Rounds" was deleted'),
        (ROUND + "SERVICE".replace("SERVICE", "service Rounds {}"), 'RPC "Next" on service "Rounds" was deleted'),
    ],
)
def test_what_another_version_would_misread_is_named(against, changed: str, said: str) -> None:  # type: ignore[no-untyped-def]
    found = against(changed)
    assert said in found if said else not found

"""A protocol brings everything it needs, and it need not be much."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

from tests.packages.installation import PACKAGES

MINIMAL = 150
"""Most lines of code of the minimal protocol; its script, its .proto and generated code do not count."""
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def modules(package: Path) -> list[Path]:
    """What somebody wrote."""
    return [each for each in package.rglob("*.py") if each.parent.name != "v1"]


def lines_of_code(text: str) -> int:
    """Lines that are neither blank nor comments nor docstrings."""
    docstrings = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {row for each in tokens if each.type not in NO_CODE for row in range(each.start[0], each.end[0] + 1)}
    return len(lines - docstrings)


def test_the_minimal_protocol_is_small() -> None:
    (package,) = (each for each in PACKAGES if each.name == "federated_count")
    counted = {each.name: lines_of_code(each.read_text()) for each in modules(package) if each.name != "studies.py"}
    assert sum(counted.values()) <= MINIMAL, counted


@pytest.mark.parametrize("package", PACKAGES, ids=lambda each: each.name)
def test_nothing_outside_a_package_knows_it(package: Path) -> None:
    """No file of the library, of the nodes or of the protos."""
    root = package.parents[2]
    found = [
        str(path)
        for folder in ("shared", "protos", "learner_node", "provider_node", "client_node", "server_node")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".proto", ".toml"} and package.name in path.read_text()
    ]
    assert found == []

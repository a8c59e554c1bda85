"""What things are called: no generic package knows a protocol's name, and nothing is called what it was called once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "shared" / "comity"
SLICES = sorted(path.parent.name for path in LIBRARY.glob("protocols/*/definition.py"))
# An integration joins a protocol with another project.
GENERIC = sorted(
    path for path in LIBRARY.iterdir() if path.name not in {"integrations", "protocols", "wire", "__pycache__"}
)
# Where words of one protocol would be read by those who run another.
SPOKEN = ("cli", "node", "protocol", "report", "session", "simulation", "store", "transport")
# The kinds that leave are names of protocols, which a policy lists.
KINDS = re.compile(r"egress.*=")

TESTS = ROOT / "tests"
PAPERS = {
    "bench/test_benchmarks.py": "a protocol's benchmark",
    "e2e/hostile/test_every_protocol_silenced.py": "one whose acceptors are several, train and take blobs",
    "experiments/test_reproduction.py": "the papers' own figures and tables",
    "node/offline_pair.py": "its bundles carry blobs",
    "node/test_budget.py": "noise covers training alone",
    "node/test_offline.py": "its bundles carry blobs",
}
"""Tests of generic packages that need what no package beside the tests has, and what that is."""

OLD = [
    "Acquaintance",
    "Acquaintances",
    "Arena",
    "AskedSession",
    "AskedSessions",
    "AskingRole",
    "AssistedTrainingTerms",
    "AtOnce",
    "CarriedProvider",
    "Carriage",
    "Contest",
    "GymnasiumGames",
    "HostedSession",
    "HostedSessions",
    "HostingRole",
    "Introduction",
    "Lab",
    "Notary",
    "Opinions",
    "Opponents",
    "OwnModelConfig",
    "Parcel",
    "Patience",
    "PatienceConfig",
    "Place",
    "ReceivedParcel",
    "Seat",
    "Settlement",
    "Shelf",
    "Shipment",
    "WatchedLog",
    "acquaintances",
    "arena",
    "asker",
    "askers",
    "carrying",
    "fewest_askers",
    "helper",
    "helpers",
    "is_carried",
    "link_to",
    "load_arena",
    "max_helpers",
    "notaries",
    "notary",
    "parcel",
    "parcels",
    "patience",
    "plays",
    "rivals",
    "seat",
    "seats",
    "shelf",
    "unheard",
]


def texts(*places: Path) -> Iterator[tuple[Path, str]]:
    """Every text file under some folders, generated code apart."""
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.suffix in {".py", ".toml", ".html", ".md", ".proto"} and "__pycache__" not in path.parts:
                yield path, path.read_text(encoding="utf-8")


def spellings(name: str) -> list[str]:
    return [name, name.replace("_", "-"), name.title().replace("_", "")]


@pytest.mark.parametrize("package", GENERIC, ids=lambda path: path.name)
def test_no_generic_package_knows_a_protocols_name(package: Path) -> None:
    assert SLICES
    names = re.compile("|".join(spelling for name in SLICES for spelling in spellings(name)))
    found = [f"{path.relative_to(ROOT)}: {match[0]}" for path, text in texts(package) for match in names.finditer(text)]
    assert not found


def test_tests_of_what_is_no_protocols_use_the_packages_beside_them() -> None:
    assert SLICES
    names = re.compile("|".join(spelling for name in SLICES for spelling in spellings(name)))
    found = {
        str(path.relative_to(TESTS))
        for path, text in texts(TESTS)
        if "protocols" not in path.relative_to(TESTS).parts[:-1] and path != Path(__file__) and names.search(text)
    }
    assert found == set(PAPERS)


@pytest.mark.parametrize("package", SPOKEN)
def test_no_word_of_one_protocol_is_said_of_all(package: str) -> None:
    words = re.compile(r"\b(checkpoint|learner|provider|pick(ed)?)s?\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path, text in texts(LIBRARY / package)
        for line in text.splitlines()
        if words.search(line) and not KINDS.search(line)
    ]
    assert not found


def test_nothing_has_a_name_that_it_had_once() -> None:
    old = re.compile(rf"\b_?({'|'.join(OLD)})\b")
    places = [ROOT / name for name in ("shared", "protos", "tests", "learner_node", "provider_node", "client_node")]
    places += [ROOT / "server_node", ROOT / "Makefile", ROOT / "pyproject.toml"]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in texts(*places)
        if path != Path(__file__) and "wire" not in path.relative_to(ROOT).parts[:3] and path.suffix != ".md"
        for match in old.finditer(text)
    ]
    assert not found

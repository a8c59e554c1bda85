"""Every option that a new node's files show in a comment works when it is uncommented, with the node's own data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comity.node.config import NodeConfig, load_config
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.node.setup.init import NodeChoices, make_node
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets

OPTION = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)
APART = {"insecure", "secret"}
"""Those that are for a node without certificates, or with another key than its card has."""


def pictures(folder: Path) -> str:
    for name in ("cat", "dog"):
        for number in range(40):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 40), number * 5, np.uint8)).save(path)
    return f"imagefolder:{folder}"


def rows(folder: Path) -> str:
    folder.mkdir()
    lines = [f"{number},{number % 7}.5,{'fm'[number % 2]},{'yes' if number % 3 else 'no'}" for number in range(60)]
    (folder / "rows.csv").write_text("\n".join(["age,weight,sex,ill", *lines]))
    return f"csv:{folder / 'rows.csv'}"


def measures(folder: Path) -> str:
    folder.mkdir()
    lines = [f"{number},{number % 7}.5,{number * 0.25}" for number in range(60)]
    (folder / "rows.csv").write_text("\n".join(["age,height,weight", *lines]))
    return f"csv:{folder / 'rows.csv'}"


def arrays(folder: Path) -> str:
    folder.mkdir()
    np.savez(folder / "all.npz", x=np.random.default_rng(0).normal(size=(60, 3)), y=np.arange(60) % 2)
    return f"npz:{folder / 'all.npz'}"


def sentences(folder: Path) -> str:
    folder.mkdir()
    (folder / "good.txt").write_text("fine work\n" * 40)
    (folder / "bad.txt").write_text("poor work\n" * 40)
    return f"text:{folder}"


def labels(folder: Path) -> str:
    folder.mkdir()
    lines = [f"{number},{number % 7}.5,{number % 2}" for number in range(60)]
    (folder / "rows.csv").write_text("\n".join(["age,weight,ill", *lines]))
    return f"csv:{folder / 'rows.csv'}"


def columns(folder: Path) -> str:
    folder.mkdir()
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {
        "age": range(60),
        "sex": ["fm"[number % 2] for number in range(60)],
        "ill": [number % 3 for number in range(60)],
    }
    parquet.write_table(
        pytest.importorskip("pyarrow").table({name: list(each) for name, each in table.items()}), folder / "r"
    )
    return f"parquet:{folder / 'r'}"


def function(folder: Path) -> str:
    """A module of one's own, in the node's folder."""
    (folder.parent / "node").mkdir()
    name = f"samples_{abs(hash(folder))}"
    (folder.parent / "node" / f"{name}.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "def ours():\n"
        "    return TensorDataset(torch.arange(180.0).view(60, 3), torch.arange(60) % 2)\n"
    )
    return f"python:{name}:ours"


SOURCES = {
    "pictures": pictures,
    "rows": rows,
    "labels": labels,
    "measures": measures,
    "columns": columns,
    "arrays": arrays,
    "sentences": sentences,
    "function": function,
    "games": lambda _: "gymnasium:CartPole-v1",
}
HEADER = re.compile(r"^(# )?\[[a-z].*\]$", re.MULTILINE | re.IGNORECASE)
ROLES = ("learner", "provider", "client", "server")


def made(folder: Path, role: str, data: str) -> list[Path]:
    """A new node's configuration, and its scripts."""
    peers = {"hospital": "127.0.0.1:1"} if role in {"learner", "client"} else {}
    found = make_node(folder, NodeChoices(role, "clinic", data=data, peers=peers))
    return [folder / "node.toml", *found.scripts]


def uncommented(text: str, found: re.Match[str]) -> str:
    """A file with one option set, in its table, which may be shown in a comment too."""
    before = text[: found.start()]
    header = [*HEADER.finditer(before)][-1:]
    if header and header[0][1]:
        before = before[: header[0].start()] + before[header[0].start() + 2 :]
    return before + text[found.end() :]


def drafted(config: Path, scripts: list[Path]) -> None:
    """Draws up the sessions of a node, as `comity check --script` does."""
    party = LocalParty("clinic", load_config(NodeConfig, config), GivenSecrets(b"s"), MemoryStore())
    for script in scripts:
        draft_contract(parse_script(script.read_text()), party, "s-1")


def each_option(files: list[Path], *, of_data_alone: bool) -> int:
    """Sets one option after the other and draws up the sessions that it says something of; how many there were."""
    config, *scripts = files
    tried = 0
    for file in files:
        text = file.read_text()
        for found in OPTION.finditer(text):
            line = text[found.end() : text.index("\n", found.end())]
            before = text[: found.start()]
            of_data = "[data]" in before and "[policy]" not in before
            if line.split(" ")[0] in APART or (of_data_alone and file == config and not of_data):
                continue
            file.write_text(uncommented(text, found))
            try:
                drafted(config, scripts if file == config else [file])
            except Exception as error:
                raise AssertionError(f"{file.name}: {line}: {error}") from error
            finally:
                file.write_text(text)
            tried += 1
    return tried


@pytest.mark.parametrize("role", ROLES)
def test_each_option_of_a_roles_files_works_uncommented(tmp_path: Path, role: str) -> None:
    files = made(tmp_path / "node", role, "digits")
    begins = {"learner": 2, "provider": 0, "client": 1, "server": 2}
    assert len(files) == 1 + begins[role]
    assert each_option(files, of_data_alone=False) > 80


@pytest.mark.parametrize("source", SOURCES)
def test_each_option_works_with_the_nodes_own_data(tmp_path: Path, source: str) -> None:
    if source == "games":
        pytest.importorskip("gymnasium")
    files = made(tmp_path / "node", "learner", SOURCES[source](tmp_path / "data"))
    drafted(files[0], files[1:])
    assert each_option(files, of_data_alone=True) > 10
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("source", ["pictures", "rows", "measures", "sentences"])
def test_the_sessions_of_other_roles_are_for_the_nodes_own_data(tmp_path: Path, source: str, role: str) -> None:
    files = made(tmp_path / "node", role, SOURCES[source](tmp_path / "data"))
    drafted(files[0], files[1:])
    # A session that the data are not for is not begun.
    assert len(files) == {"client": 2, "server": 3}[role] - (source == "measures")

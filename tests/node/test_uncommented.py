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


SOURCES = {
    "pictures": pictures,
    "rows": rows,
    "measures": measures,
    "arrays": arrays,
    "sentences": sentences,
    "digits": lambda _: "digits",
}


@pytest.mark.parametrize("source", SOURCES)
def test_each_option_works_uncommented(tmp_path: Path, source: str) -> None:
    data = SOURCES[source](tmp_path / "data")
    make_node(tmp_path / "node", NodeChoices("learner", "clinic", data=data, peers={"hospital": "127.0.0.1:1"}))
    path, script = tmp_path / "node" / "node.toml", tmp_path / "node" / "session.toml"
    config, session = path.read_text(), script.read_text()
    places = [(path, config, found) for found in OPTION.finditer(config)]
    places += [(script, session, found) for found in OPTION.finditer(session)]
    assert len(places) > 40
    for file, text, found in places:
        line = text[found.end() : text.index("\n", found.end())]
        # What is read with the data is read anew for options of theirs alone.
        if line.split(" ")[0] in APART:
            continue
        file.write_text(text[: found.start()] + text[found.end() :])
        try:
            loaded = load_config(NodeConfig, path)
            if file == script or ("[data]" in text[: found.start()] and "[policy]" not in text[: found.start()]):
                party = LocalParty("clinic", loaded, GivenSecrets(b"s"), MemoryStore())
                draft_contract(parse_script(script.read_text()), party, "s-1")
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from error
        finally:
            file.write_text(text)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)

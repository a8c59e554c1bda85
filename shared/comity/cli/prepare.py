"""`comity prepare`."""

from __future__ import annotations

from pathlib import Path

from comity.cli.files import read_script
from comity.cli.tables import show_json
from comity.node.sessions.script import parse_script
from comity.simulation.places import OPERATOR, Layout, prepare_places


def prepare(path: Path, folder: Path, layout: Layout, *, as_json: bool) -> None:
    """Makes the folders of a script's parties and says where they are."""
    text = read_script(path)
    taken, new = prepare_places(parse_script(text, str(path)), text, folder, layout)
    if as_json:
        show_json({"places": taken, "new": new})
        return
    for party, place in taken.items():
        print(f"{party:<12} {folder / place}")  # noqa: T201
    home = folder / OPERATOR
    print(f"{OPERATOR:<12} {home}" if new else "they were there already, and are left as they are")  # noqa: T201
    print(f"once their nodes run: comity run {home}/session.toml --nodes {home}/nodes.toml --wait 120")  # noqa: T201

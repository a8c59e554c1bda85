"""`docs/many-clients.md`, word for word: what it has four operators type, and what it says that they will see."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.pages import PATIENCE_S, ROOT, Follower, steps
from tests.e2e.test_control_port import free_port

STEPS = steps(ROOT / "docs" / "many-clients.md")
SIDES = ("coop", "north", "south", "east")


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
def test_the_page_word_for_word() -> None:
    address = f"127.0.0.1:{free_port()}"

    def shell(side: str, line: str) -> list[str]:
        listen = f"COMITY_NODE_LISTEN={address} " if side == "coop" and "comity node" in line else ""
        return ["sh", "-c", listen + line.replace("coop.example.org:5500", address)]

    with TemporaryDirectory(prefix="e2e-", dir="/tmp") as home, ExitStack() as stack:
        folders = {side: Path(home) / side for side in SIDES}
        for each in folders.values():
            each.mkdir()
        operators = Follower(folders, stack, shell)
        for step in STEPS:
            operators.take(step)
        for side, node in operators.running.items():
            node.terminate()
            assert node.wait(20) == 0, side
        # The keys stayed where they were made, and no clinic has another's card.
        keys = {side: (folder / "key.pem").read_bytes() for side, folder in folders.items()}
        for side, folder in folders.items():
            others = [keys[each] for each in SIDES if each != side]
            files = [each.read_bytes() for each in folder.rglob("*") if each.is_file()]
            assert not any(key in content for key in others for content in files)
        assert [each.name for each in (folders["north"] / "trust").iterdir()] == ["coop.pem"]

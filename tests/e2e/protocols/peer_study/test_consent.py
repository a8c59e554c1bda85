"""A session in which samples leave, between processes: an operator releases them at the command line, over a restart."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate
from tests.e2e.conftest import Typed, until
from tests.e2e.protocols.peer_study.people import FOLLOWED_S, TIMEOUT_S, Labelled, begun
from tests.protocols.peer_study.sessions import UPLOADS

TEXT = UPLOADS
comity = Typed()


def waiting(session: Labelled, count: int) -> None:
    """Waits until so many of ann's samples are asked about."""

    def asks() -> bool:
        return any(each.reason == "consent" and f"{count} labelled" in each.waits_for for each in session.waits("ann"))

    until(asks, f"{count} samples wait for consent", deadline_s=FOLLOWED_S)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_samples_wait_for_consent_over_a_restart_and_leave_when_they_are_released() -> None:
    found = parse_script(TEXT.replace(', consent = "standing"', "", 1))
    with TemporaryDirectory(prefix="e2e-") as name, begun(found, Path(name)) as session:
        folder = Path(name)
        waiting(session, 10)
        assert session.state("ann") == "waiting"
        shown = comity.json(*session.command("ann", "consent"), cwd=folder)
        assert (len(shown["left"]), shown["decided"]) == (10, [])
        assert "nobody asks" in comity.fails(
            *session.command("ann", "consent", "release", "no-such"), cwd=folder, code=2
        )
        one, *others = shown["left"]
        comity(*session.command("ann", "consent", "release", one, "--as", "zoe"), cwd=folder)
        session.restart("ann")
        waiting(session, 9)
        shown = comity.json(*session.command("ann", "consent", "release", "--as", "bea"), cwd=folder)
        assert (shown["left"], len(shown["decided"])) == ([], 10)
        waiting(session, 6)
        comity(*session.command("ann", "consent", "release", "--as", "zoe"), cwd=folder)
        metrics, digest = session.result("ann")["metrics"], session.digest
    assert {each["sample"]: each["by"] for each in metrics["consents"]} == {
        one: "zoe",
        **dict.fromkeys(others, "bea"),
        **{each["sample"]: "zoe" for each in metrics["consents"][10:]},
    }
    assert (metrics["samples_released"], metrics["protected_crossed"]) == (16, 0)
    assert digest == simulate(parse_script(TEXT))[0].digest

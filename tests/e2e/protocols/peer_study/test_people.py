"""A session that people label: it waits as long as they take, over restarts, and comes to what it comes to by an oracle."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.simulation.in_process import simulate
from tests.e2e.conftest import Typed, until
from tests.e2e.protocols.peer_study.people import SESSION, TIMEOUT_S, begun, script, truth

typed = Typed()


@pytest.mark.timeout(TIMEOUT_S)
def test_people_label_over_restarts_and_the_session_is_the_one_of_an_oracle_that_says_the_same() -> None:
    found = script("ann")
    labels = truth(found, "ann")
    with TemporaryDirectory(prefix="e2e-") as name, begun(found, Path(name)) as session:
        shown = session.asked("ann", 0)
        ids = [each["sample"] for each in shown["samples"]]
        assert len(ids) == 4
        assert shown["classes"] == [str(each) for each in range(10)]
        (wait,) = session.waits("ann")
        assert "label 4 samples of step 0" in wait.waits_for
        assert "comity annotate" in wait.ends_with
        assert session.state("ann") == "waiting"
        # The other client's labels are there at once, and the server waits for them no longer.
        until(
            lambda: [(each.reason, each.subject) for each in session.waits("server")] == [("labels-elsewhere", "ann")],
            "the server waits for one client's labels",
        )
        # What it waits for is told in all places that tell of a session.
        folder, node = Path(name), ("--node", session.nodes["ann"].folder)
        assert typed("report", SESSION, "--out", "waits.html", *node, cwd=folder).returncode == 0
        for shown_there in (
            (folder / "waits.html").read_text(),
            *(typed(*words, *node, cwd=folder).stdout for words in (("show", SESSION), ("sessions",))),
        ):
            assert "label 4 samples of step 0" in " ".join(shown_there.split())
        said = [{"sample": each, "label": labels[each]} for each in ids]
        # What is wrong is told in a line, nothing of it counts, and the session waits.
        for wrong, line in (
            ([{"sample": ids[0], "label": 10}], "no class: expected a number from 0 to 9"),
            ([{"sample": ids[0]}], "is missing"),
            ([said[0], said[0]], "two labels of zoe"),
            ([{"sample": "nobody", "label": 1}], "never exported"),
            ([said[0] | {"digest": "0" * 64}], "not the one that was chosen"),
            ([said[0], {"sample": ids[1], "label": -1}], "no class"),
        ):
            assert line in session.refused("ann", "labels.say", annotator="zoe", said=wrong)
        assert "needs a name" in session.refused("ann", "labels.say", annotator="", said=said)
        assert "nobody labels" in session.refused("bob", "labels.show")
        assert session.call("ann", "labels.show")["left"] == 4
        taken = session.call("ann", "labels.say", annotator="zoe", said=said[:1])
        assert (taken["taken"], taken["known"], taken["left"]) == (1, 0, 3)
        assert session.call("ann", "labels.say", annotator="zoe", said=said[1:2], is_final=False)["left"] == 3
        session.restart("ann")
        session.restart("server")
        shown = session.asked("ann", 0)
        assert [each["sample"] for each in shown["samples"]] == ids
        kept = shown["samples"][1]["said"]["zoe"]
        assert (kept["label"], kept["is_final"]) == (labels[ids[1]], False)
        assert shown["left"] == 3
        taken = session.call("ann", "labels.say", annotator="zoe", said=said)
        assert (taken["taken"], taken["known"], taken["left"]) == (3, 1, 0)
        shown = session.asked("ann", 1)
        later = [each["sample"] for each in shown["samples"]]
        assert len(later) == 3
        assert not set(later) & set(ids)
        assert "of an earlier step" in session.refused("ann", "labels.say", annotator="zoe", said=said[:1])
        said = [{"sample": each, "label": labels[each]} for each in later]
        session.call("ann", "labels.say", annotator="zoe", said=said)
        result, digest = session.result("ann"), session.digest
    entries = result["metrics"]["annotations"]
    assert [(each["step"], each["sample"]) for each in entries] == [
        *((0, each) for each in ids),
        *((1, each) for each in later),
    ]
    assert {each["annotator"] for each in entries} == {"zoe"}
    assert all(each["at"] for each in entries)
    assert digest == simulate(script())[0].digest

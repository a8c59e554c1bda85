"""Whole sessions that people label in files: a table, and Label Studio's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.simulation.in_process import simulate
from tests.e2e.conftest import Typed
from tests.e2e.protocols.peer_study.people import TIMEOUT_S, Labelled, begun, script, truth

comity = Typed()


def by_table(session: Labelled, party: str, folder: Path, labels: dict[str, int], annotator: str = "zoe") -> None:
    """Labels what is to be labelled in the table that is exported."""
    written = comity.json(*session.command(party, "export", folder, "--guess"), cwd=folder.parent)
    table = folder / "labels.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == written["samples"] > 0
    for row in rows:
        assert (folder / row["file"]).read_bytes().startswith(b"\x89PNG")
        assert float(row["guess_score"]) > 0
        row["label"] = str(labels[row["sample"]])
    with table.open("w", encoding="cp1252", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    taken = comity.json(*session.command(party, "import", table, "--as", annotator), cwd=folder.parent)
    assert taken["annotators"] == {annotator: {"taken": len(rows), "known": 0}}


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_a_session_is_labelled_in_a_table_by_two_people_of_whom_a_rule_decides() -> None:
    found = script("ann", terms='annotators = 2\nwhen_they_differ = "first"')
    labels = truth(found, "ann")
    with TemporaryDirectory(prefix="e2e-") as name, begun(found, Path(name)) as session:
        folder = Path(name) / "files"
        folder.mkdir()
        ids = [each["sample"] for each in session.asked("ann", 0)["samples"]]
        wrong = folder / "wrong.csv"
        wrong.write_text(f"sample,label\n{ids[0]},12\n")
        assert "no class" in comity.fails(*session.command("ann", "import", wrong), cwd=folder, code=2)
        by_table(session, "ann", folder / "first", labels)
        assert session.asked("ann", 0)["left"] == 4
        # Of the second, who sees it otherwise, nothing counts: the first was first.
        by_table(session, "ann", folder / "other", {each: (label + 1) % 10 for each, label in labels.items()}, "bea")
        session.asked("ann", 1)
        shown = comity(*session.command("ann", "show"), cwd=folder).stdout
        assert "bea and zoe: the same of 4 samples 0%" in shown
        by_table(session, "ann", folder / "second", labels)
        by_table(session, "ann", folder / "last", labels, "bea")
        metrics, digest = session.result("ann")["metrics"], session.digest
    assert digest == simulate(script())[0].digest
    (agreed,) = metrics["agreement"]
    assert (agreed["samples"], agreed["same"]) == (7, 3 / 7)


def annotated(tasks: Path, labels: dict[str, int]) -> None:
    """What Label Studio exports of tasks that somebody has labelled."""
    found = json.loads(tasks.read_text())
    for number, task in enumerate(found, start=1):
        choice = {"choices": [str(labels[task["data"]["comity_sample"]])]}
        region = {"id": f"r{number}", "from_name": "label", "to_name": "sample", "type": "choices", "value": choice}
        task["annotations"] = [
            {
                "id": number,
                "completed_by": 1,
                "was_cancelled": False,
                "result": [region],
                "created_at": "2026-01-02T03:04:05Z",
            }
        ]
        task |= {"id": number, "predictions": [number]}
    tasks.with_name("exported.json").write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_a_session_is_labelled_through_a_file_of_label_studios() -> None:
    found = script("ann")
    labels = truth(found, "ann")
    with TemporaryDirectory(prefix="e2e-") as name, begun(found, Path(name)) as session:
        folder = Path(name) / "files"
        for step in (0, 1):
            session.asked("ann", step)
            written = folder / str(step)
            words = session.command("ann", "export", written, "--format", "label-studio", "--guess")
            assert comity(*words, cwd=Path(name)).returncode == 0
            annotated(written / "tasks.json", labels)
            taken = comity.json(*session.command("ann", "import", written / "exported.json"), cwd=Path(name))
            assert [*taken["annotators"]] == ["label-studio-1"]
            assert taken["left"] == 0
        digest = session.digest
    assert digest == simulate(script())[0].digest

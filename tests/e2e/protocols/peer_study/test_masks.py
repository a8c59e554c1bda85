"""A session of masks between processes, which somebody draws in files and in Label Studio; it comes to what an oracle's would."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import NDArray

from comity.data import load_data
from comity.node.sessions.script import parse_script
from comity.protocols.peer_study.annotation.masks import indexed
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.verbs.brush import encode
from comity.simulation.in_process import simulate
from tests.e2e.conftest import Typed
from tests.e2e.protocols.peer_study import people
from tests.e2e.protocols.peer_study.people import TIMEOUT_S, Labelled, begun
from tests.protocols.peer_study.test_segmentation import session as masks_session

comity = Typed()
Masks = dict[str, NDArray[np.uint8]]


def drawn_in_files(session: Labelled, folder: Path, truth: Masks) -> None:
    """Labels what is to be labelled by an indexed PNG for each picture."""
    comity.json(*session.command("ann", "export", folder, "--guess"), cwd=folder.parent)
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    for row in rows:
        (folder / row["mask"]).write_bytes(indexed(truth[row["sample"]]))
        row["label"] = row["mask"]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    taken = comity.json(*session.command("ann", "import", folder / "labels.csv", "--as", "zoe"), cwd=folder)
    assert taken["annotators"] == {"zoe": {"taken": len(rows), "known": 0}}


def painted_in_label_studio(session: Labelled, folder: Path, truth: Masks) -> None:
    """Labels what is to be labelled as Label Studio exports what was painted."""
    exported = comity.json(
        *session.command("ann", "export", folder, "--format", "label-studio", "--guess"), cwd=folder.parent
    )
    tasks = json.loads((folder / "tasks.json").read_text())
    assert len(tasks) == exported["samples"]
    for task in tasks:
        assert task.pop("predictions")[0]["result"][0]["type"] == "brushlabels"
        mask = truth[task["data"]["comity_sample"]]
        results = [
            {
                "from_name": "label",
                "to_name": "sample",
                "type": "brushlabels",
                "original_width": mask.shape[1],
                "original_height": mask.shape[0],
                "value": {"format": "rle", "rle": encode(mask == number), "brushlabels": [str(number)]},
            }
            for number in np.unique(mask[mask != IGNORED]).tolist()
        ]
        task["annotations"] = [{"result": results, "completed_by": {"email": "zoe@clinic.example"}}]
    (folder / "painted.json").write_text(json.dumps(tasks))
    taken = comity.json(*session.command("ann", "import", folder / "painted.json"), cwd=folder)
    assert taken["annotators"] == {"zoe@clinic.example": {"taken": len(tasks), "known": 0}}


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_a_session_of_masks_is_drawn_in_files_and_painted_in_label_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        text = masks_session(folder).replace("steps = 30", "steps = 4").replace('id = "masks"', 'id = "small"')
        drawn = text.replace(
            'secret = "ann\'s"', 'secret = "ann\'s"\nprotocols = { peer_study = { labels = "people" } }'
        )
        assert drawn != text
        found = parse_script(drawn)
        data = found.party["ann"].data
        assert data is not None
        pool = load_data(data).find("pool")
        assert pool is not None
        truth = {sample: mask.numpy() for sample, mask in zip(pool.ids, pool.labels, strict=True)}
        monkeypatch.setattr(people, "SESSION", "small")
        with begun(found, folder / "nodes") as session:
            session.asked("ann", 0)
            refused = comity.fails(*session.command("ann", "serve"), cwd=folder, code=2)
            assert "masks are not drawn" in refused
            drawn_in_files(session, folder / "step-0", truth)
            session.asked("ann", 1)
            painted_in_label_studio(session, folder / "step-1", truth)
            metrics, digest = session.result("ann")["metrics"], session.digest
        assert metrics["labels"] == [16, 20]
        assert digest == simulate(parse_script(text))[0].digest

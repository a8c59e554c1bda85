"""A person's whole way: a table of one's own, a session with a partner, the model in plain PyTorch, predictions, a report, the bill."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.test_own_data import Parties, pair, write  # noqa: F401 - a fixture

PRICE = '[session.price]\namount = 2.5\ncurrency = "EUR"\n\n[session.terms]\nstop_when_stalled = 2\n'


def table(text: str) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(text))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_a_table_to_the_bill(pair: Parties) -> None:  # noqa: F811
    root, comity = pair.root, pair.comity
    state = root / "clinic" / "state"
    # Some of one's own samples are kept to test on.
    config = root / "clinic" / "node.toml"
    example = "# splits = { calibration = { share = 0.1 } }"
    assert example in config.read_text()
    config.write_text(config.read_text().replace(example, "splits = { test = { share = 0.25 } }"))
    pair.start("clinic")
    script = pair.script("whole", batch_size="64")
    script.write_text(script.read_text().replace("[session.terms]\n", PRICE))
    done = comity("run", script, "--node", state, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "EUR from clinic to hospital" in done.stdout
    assert "than alone: accuracy" in done.stdout or "no difference: accuracy" in done.stdout

    # The model, in plain PyTorch.
    left = state / "sessions" / "whole"
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    network.load_state_dict(load_file(left / "model.safetensors"))
    described: Any = json.loads((left / "model.json").read_text())["task"]
    mean, std = (torch.tensor(described["inputs"]["preprocessing"][each]) for each in ("mean", "std"))
    write(root / "held-out.csv", slice(200, 300))
    rows = table((root / "held-out.csv").read_text())
    values = torch.tensor([[float(row[name]) for name in described["inputs"]["features"]] for row in rows])
    classes = network((values - mean) / std).argmax(1).tolist()
    labels = described["heads"][0]["labels"]
    mine = [labels[each] for each in classes]

    # Predictions, exported, are the same; and so is what a test says.
    answer = comity("predict", "held-out.csv", "--model", left, "--out", "said.csv", cwd=root)
    assert answer.returncode == 0, answer.stderr
    assert [row["class"] for row in table((root / "said.csv").read_text())] == mine
    right = sum(one == row["diagnosis"] for one, row in zip(mine, rows, strict=True)) / len(rows)
    tested = comity.json("evaluate", "held-out.csv", "--model", left, cwd=root)
    assert tested["metrics"]["accuracy"] == pytest.approx(right)

    # A report tells it.
    page = root / "whole.html"
    comity.json("report", "whole", "--node", state, "--out", page, cwd=root)
    told = page.read_text()
    assert all(word in told for word in ("hospital", "accuracy", "alone", "EUR", "What crossed the wire"))

    # What it cost, both sides say alike.
    bills = [
        table(comity("statement", "whole", "--csv", "--state", root / party / "state", cwd=root).stdout)
        for party in ("clinic", "hospital")
    ]
    for bill in bills:
        rounds = [row for row in bill if row["unit"] == "round"]
        assert {(row["party"], row["from"], row["to"], row["amount"]) for row in rounds} == {
            ("hospital", "clinic", "hospital", "2.5")
        }
    ours, theirs = ({row["first"]: row for row in bill if row["unit"]} for bill in bills)
    assert {first: row["bytes_sent"] for first, row in ours.items()} == {
        first: row["bytes_received"] for first, row in theirs.items()
    }
    verified = comity.json("ledger", "verify", "--state", state, cwd=root)
    assert verified["charged"] == {"round": len(ours)}

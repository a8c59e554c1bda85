"""What `comity check` says of the protection of a node's samples: layers that nobody judges, and weights that look crafted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from comity.node.preflight import Context, Row, preflight, rehearsal

NODE = """
party = "hospital"
role = "provider"
listen = "127.0.0.1:0"
state_dir = "state"
insecure = true
data = { source = "digits" }

[privacy]
preset = "PRESET"

[models]
odd = "python:odd_models:odd"
crafted = "python:odd_models:crafted"
"""
OWN = """
[protocols.assisted-learning.own_model]
name = "OWN"
learning_rate = 0.003
"""
SESSION = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 1
model = { name = "MODEL" }
[session.terms]
batch_size = 256
sampling_period = 5
"""
MODELS = """
import torch
from torch import nn
from torch.nn.functional import linear


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.free = nn.Parameter(torch.zeros(8, 64))
        self.words = nn.Embedding(17, 8)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        flat = x.flatten(1)
        words = self.words((flat * 16).long().clamp(0, 16))
        seen, _ = self.attention(words, words, words)
        read, _ = self.recurrent(seen)
        return self.head(read[:, -1] + linear(flat, self.free))


def odd(input_shape, classes):
    return Odd()


def crafted(input_shape, classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.arange(64.0))
    return model
"""

Said = Callable[..., list[Row]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """The rows about privacy of a check of a guarded provider."""
    (tmp_path / "odd_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)

    def check(
        model: str, *, preset: str = "guarded", rounds: int = 1, period: int = 5, own: str = "", data: str = "digits"
    ) -> list[Row]:
        text = NODE.replace("PRESET", preset).replace('"digits"', f'"{data}"') + (
            OWN.replace("OWN", own) if own else ""
        )
        (tmp_path / "node.toml").write_text(text)
        session = SESSION.replace("MODEL", model).replace("rounds = 1", f"rounds = {rounds}")
        (tmp_path / "session.toml").write_text(session.replace("sampling_period = 5", f"sampling_period = {period}"))
        rows = preflight(Context(tmp_path / "node.toml", "provider", tmp_path / "session.toml"))
        return [row for row in rows if row.check == "privacy"]

    return check


def test_layers_that_nobody_judges_are_named_and_embeddings_are_judged(said: Said) -> None:
    first, _, warning = said("odd")
    assert first.verdict == "passed"
    assert "convolutions, losses, label counts and membership are not" in first.found
    assert warning.verdict == "warning"
    for layer in ("recurrent (GRU)", "attention (MultiheadAttention)", "the model itself (Odd)"):
        assert layer in warning.found
    assert "words" not in warning.found
    assert "head (" not in warning.found


def test_rows_that_are_nearly_parallel_are_told_of(said: Said) -> None:
    _, _, warning = said("crafted")
    assert warning.verdict == "warning"
    assert "nearly parallel" in warning.found
    assert "1.weight" in warning.found


def test_nothing_is_said_of_a_usual_model_and_of_public_data(said: Said) -> None:
    assert [row.verdict for row in said("mlp")] == ["passed", "passed"]
    (only,) = said("crafted", preset="public")
    assert "nothing is held back" in only.found


def test_a_model_that_stays_is_said_to_be_judged_in_the_one_that_leaves(said: Said) -> None:
    *_, stays = said("mlp", own="cnn-small")
    assert stays.verdict == "passed"
    assert stays.found == "cnn-small stays here; what it teaches is judged in the models that leave"


def test_what_stands_behind_each_send_is_told_before_rounds_are_bought(said: Said) -> None:
    """Of 1,347 digits, five batches of 256 draw some 877, two some 463; a layer of 64 units wants 320."""
    _, enough = said("mlp", rounds=5)
    assert enough.verdict == "passed"
    assert enough.found.startswith("about 877 of 1347 samples behind what is sent each time, 320 wanted")
    _, thin = said("mlp", rounds=5, period=2)
    assert thin.verdict == "warning"
    assert thin.found.startswith("about 463 of 1347 samples behind what is sent each time, 320 wanted")
    assert "5 rounds" in thin.found
    assert "RELEASE_REFUSED" in thin.found
    _, one_round = said("mlp", period=2)
    assert one_round.verdict == "passed"


def test_how_many_rounds_samples_that_are_soon_learned_carry_is_told_before_they_are_bought(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough samples stand behind each send, but what all of them show is learned in the first rounds."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 400)
    inputs = (np.eye(3, 6)[labels] * 2 + 0.7 * generator.standard_normal((400, 6))).astype(np.float32)
    np.savez(tmp_path / "easy.npz", x=inputs, y=labels)
    monkeypatch.setattr(rehearsal, "_AT_MOST_S", 300.0)
    _, warning = said("mlp", rounds=20, data="npz:easy.npz")
    assert warning.verdict == "warning"
    found = re.search(r"about 398 of 400 samples.*in about round (\d+) of 20.*RELEASE_REFUSED", warning.found)
    assert found is not None
    assert int(found[1]) < 10
    assert "fewer rounds" in warning.action

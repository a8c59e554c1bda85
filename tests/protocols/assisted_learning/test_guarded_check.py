"""What `comity check` says of the protection of a node's samples: layers that nobody judges, and weights that look crafted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from comity.node.preflight import Context, Row, preflight

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

    def check(model: str, *, preset: str = "guarded") -> list[Row]:
        (tmp_path / "node.toml").write_text(NODE.replace("PRESET", preset))
        (tmp_path / "session.toml").write_text(SESSION.replace("MODEL", model))
        rows = preflight(Context(tmp_path / "node.toml", "provider", tmp_path / "session.toml"))
        return [row for row in rows if row.check == "privacy"]

    return check


def test_layers_that_nobody_judges_are_named_and_embeddings_are_judged(said: Said) -> None:
    first, warning = said("odd")
    assert first.verdict == "passed"
    assert "convolutions, losses, label counts and membership are not" in first.found
    assert warning.verdict == "warning"
    for layer in ("recurrent (GRU)", "attention (MultiheadAttention)", "the model itself (Odd)"):
        assert layer in warning.found
    assert "words" not in warning.found
    assert "head (" not in warning.found


def test_rows_that_are_nearly_parallel_are_told_of(said: Said) -> None:
    _, warning = said("crafted")
    assert warning.verdict == "warning"
    assert "nearly parallel" in warning.found
    assert "1.weight" in warning.found


def test_nothing_is_said_of_a_usual_model_and_of_public_data(said: Said) -> None:
    assert [row.verdict for row in said("mlp")] == ["passed"]
    (only,) = said("crafted", preset="public")
    assert "nothing is held back" in only.found

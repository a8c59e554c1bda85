"""`import comity`: at once, and with what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity
from comity.contract import Preprocessing
from comity.data import Splits
from comity.errors import InvalidValue, MissingFile
from comity.front.casting import cast
from comity.front.table import Rounds
from comity.protocol.presentation import Column
from comity.protocol.registry import protocol


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, comity; comity.version(); from comity import errors; dir(comity); "
        "print([each for each in ('torch', 'grpc', 'pydantic', 'numpy', 'rich') if each in sys.modules])"
    )
    light = code.replace("dir(comity); ", "")
    done = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout


def test_what_it_offers() -> None:
    for name in comity.__all__:
        assert getattr(comity, name) is not None
    assert {*comity.__all__, *comity.protocol_names()} <= set(dir(comity))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = comity.nothing_like_it
    assert comity.errors.InvalidValue is InvalidValue


def test_a_protocol_of_another_package_is_there_by_its_name() -> None:
    assert comity.federated_count.__name__ == "federated_count"
    policy: Any = {"egress": ["contract", "count"]}
    result: Any = comity.simulate(
        "federated-count",
        [comity.Party(data=_samples(), policy=policy), comity.Party(data=_samples(), policy=policy)],
        comity.terms("federated_count", first_class=1),
        rounds=2,
    )
    assert result.metrics["sum"] == sum(result.metrics["sum_by_round"])
    assert result.models == {}
    with pytest.raises(InvalidValue, match="another number of models"):
        _ = result.model


def _samples() -> tuple[Any, Any]:
    return np.zeros((20, 3), np.float32), np.arange(20) % 4


def test_no_node(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no node runs here"):
        comity.connect(tmp_path)
    with pytest.raises(MissingFile, match="no operator's folder"):
        comity.connect("clinic@127.0.0.1:5600", tmp_path)


def test_rounds_as_rows_columns_and_text() -> None:
    columns = [Column("loss", "loss", "number"), Column("share", "share", "share"), Column("none", "none", "number")]
    rounds = Rounds(
        [{"round": each, "loss": each / 3, "share": None, "list": [each]} for each in range(1, 41)], columns
    )
    assert rounds[-1]["round"] == 40
    assert [row["round"] for row in rounds[:2]] == [1, 2]
    assert rounds.columns["round"].dtype.kind == "i"
    assert rounds.columns["loss"][2] == 1.0
    assert rounds.columns["list"][0] == [1]
    text = repr(rounds)
    assert len(text.splitlines()) == 22
    assert "none" not in text
    assert "…" in text
    assert rounds._repr_html_().count("<tr>") == 22
    assert repr(Rounds([])) == ""


def test_a_party_has_samples_by_what_they_are_for() -> None:
    x, y = _samples()
    party = comity.Party(
        data={"train": (x, y), "test": (x, y), "calibration": (x[:4], y[:4]), "pool": (x[:3], None, y[:3] == 1)}
    )
    (found,) = (each.own_data for each in _held(party))
    assert isinstance(found, Splits)
    assert [(name, len(each)) for name, each in found.items()] == [
        ("train", 20),
        ("test", 20),
        ("calibration", 4),
        ("pool", 3),
    ]
    pool = found.split("pool")
    assert pool.labels.tolist() == [-1, -1, -1]
    assert pool.protected is not None
    assert pool.protected.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"pool": _samples()}, "expected train"),
        ({"train": _samples(), "spare": _samples()}, "expected train"),
        ({"train": _samples(), "pool": (np.zeros((3, 3), np.float32), None, np.zeros(2, bool))}, "marks of protected"),
        ({"train": _samples(), "pool": (np.zeros((3, 4), np.float32), None)}, "pool samples are not like"),
    ],
)
def test_samples_that_are_for_nothing_are_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValue, match=said) as caught:
        _held(comity.Party(data=data))
    assert "\n" not in str(caught.value)


def _held(party: comity.Party) -> list[Any]:
    parties = [party, comity.Party(data=_samples())]
    return list(cast(parties, protocol("federated_count"), (), Preprocessing(), None).parties.values())[:1]

"""Two parties whose folders name classes otherwise are refused; brought together, they end as equal folders do."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comity.errors import TaskMismatch
from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate

SCRIPT = """
[session]
protocol = "assisted_learning"
id = "case"
acceptors = ["hospital"]
rounds = 2
[session.model]
name = "mlp"
options = {{ hidden = 8 }}
[session.terms]
optimizer = "adam"
learning_rate = 0.01
batch_size = 16
iterations = 20
sampling_period = 5
[party.clinic]
role = "learner"
secret = "l"
data = {{ source = "imagefolder:{clinic}" }}
[party.hospital]
role = "provider"
secret = "p"
[party.hospital.data]
source = "imagefolder:{hospital}"
{classes}
"""


def folder(root: Path, classes: dict[str, int], samples: int) -> Path:
    """Pictures whose brightness says what they are of, in one folder a class."""
    for name, level in classes.items():
        draws = np.random.default_rng(level)
        for number in range(samples):
            path = root / name / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(draws.normal(level, 30, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return root


def run(clinic: Path, hospital: Path, classes: str = "") -> Any:
    text = SCRIPT.format(clinic=clinic, hospital=hospital, classes=classes)
    return simulate(parse_script(text))[0]


@pytest.mark.parametrize(
    ("classes", "said", "action"),
    [
        (
            {"benign": 50, "Malignant": 200},
            'class 0 is "Malignant" at hospital and "benign" in the contract',
            '[data.classes] "Malignant" = "malignant"',
        ),
        (
            {"malignant": 200, "normal": 50},
            'class 0 is "malignant" at hospital and "benign" in the contract',
            '[data.classes] "normal" = "benign"',
        ),
        (
            {"benign": 50, "malignant": 200, "normal": 90},
            'class 2 is "normal" at hospital and none in the contract',
            'have classes = ["benign", "malignant", "normal"] under [data] where the contract is drafted',
        ),
    ],
)
def test_other_names_are_refused_with_both_lists(
    tmp_path: Path, classes: dict[str, int], said: str, action: str
) -> None:
    clinic = folder(tmp_path / "clinic", {"benign": 50, "malignant": 200}, 15)
    with pytest.raises(TaskMismatch) as caught:
        run(clinic, folder(tmp_path / "hospital", classes, 20))
    assert said in str(caught.value)
    assert "benign, malignant" in str(caught.value.expected)
    assert action in caught.value.action


def test_names_that_are_brought_together_end_as_equal_folders_do(tmp_path: Path) -> None:
    clinic = folder(tmp_path / "clinic", {"benign": 50, "malignant": 200}, 15)
    equal = run(clinic, folder(tmp_path / "equal", {"benign": 50, "malignant": 200}, 20))
    other = folder(tmp_path / "other", {"2-gutartig": 50, "1-bösartig": 200}, 20)
    mapped = run(clinic, other, '[party.hospital.data.classes]\n"2-gutartig" = "benign"\n"1-bösartig" = "malignant"')
    assert mapped.digest == equal.digest


def test_names_that_another_file_system_spells_otherwise_are_the_same(tmp_path: Path) -> None:
    # As macOS writes it, with the accent behind its letter: it then comes before "bz", and not behind it.
    names = {"b\u00f6se": 50, "bz": 200}
    equal = run(folder(tmp_path / "clinic", names, 15), folder(tmp_path / "equal", names, 20))
    apart = folder(tmp_path / "apart", {unicodedata.normalize("NFD", name): level for name, level in names.items()}, 20)
    assert min(path.name for path in apart.iterdir()) != "bz"
    assert run(tmp_path / "clinic", apart).digest == equal.digest

"""Peer study of masks, on small generated scenes: losses of pixels, and a whole session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from comity.errors import MalformedMessage, TaskMismatch
from comity.node.sessions.script import parse_script
from comity.protocols.peer_study import consensus_split, discrepancy, in_class_loss
from comity.protocols.peer_study.choices import IGNORED
from comity.protocols.peer_study.oracle import SimulatedOracle
from comity.protocols.peer_study.students import label_loss
from comity.simulation.in_process import simulate
from tests.protocols.peer_study import street


def session(folder: Path, *, student: str = "fcn", teacher: str = "fcn", terms: str = "", size: int = 60) -> str:
    """A server that tests, and two clients whose oracle says masks; half of each pool is protected."""
    for number, name in enumerate(("ann", "bob", "server")):
        street.save(folder / f"{name}.npz", number, size)
    clients = "".join(
        f"""
[party.{name}]
role = "client"
secret = "{name}'s"
policy = {{ min_clients = 2 }}
privacy = {{ preset = "public" }}
[party.{name}.data]
source = "npz:{folder / name}.npz"
splits = {{ pool = {{ share = 0.9, protected = 0.5 }} }}
"""
        for name in ("ann", "bob")
    )
    return f"""
[session]
protocol = "peer_study"
id = "masks"
acceptors = ["server"]
rounds = 4
seed = 3
[session.models.teacher]
name = "{teacher}"
[session.models.student]
name = "{student}"
[session.task]
kind = "segmentation"
input_shape = [3, {street.SIZE}, {street.SIZE}]
classes = {street.CLASSES}
[session.terms]
clients = 2
min_clients = 2
steps = 30
batch_size = 8
pool_batch_size = 8
initial = 10
budget = 4
rounds_per_step = 2
{terms}
[party.server]
role = "server"
secret = "server's"
policy = {{ min_clients = 2 }}
[party.server.data]
source = "npz:{folder / "server"}.npz"
splits = {{ test = {{ share = 0.5 }} }}
{clients}
"""


def test_losses_of_masks_are_of_the_pixels_that_count() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 3, 4, 5, 6, generator=draws), torch.randn(3, 4, 5, 6, generator=draws)
    labels = torch.randint(4, (3, 5, 6), generator=draws).to(torch.uint8)
    labels[0, :2] = IGNORED
    labels[2] = IGNORED
    found = in_class_loss(logits, teacher, labels, alpha=0.3, temperature=2.0)
    told = (teacher / 2).softmax(1)
    expected = []
    for at in range(3):
        pixels = (labels[at] != IGNORED).nonzero().tolist()
        of_pixels = [
            0.7 * cross_entropy(logits[peer, at, :, y, x], labels[at, y, x].long())
            - 0.3 * 4 * (told[at, :, y, x] * (logits[peer, at, :, y, x] / 2).log_softmax(0)).sum()
            for y, x in pixels
            for peer in range(2)
        ]
        expected.append(sum(of_pixels, torch.tensor(0.0)) / max(1, len(pixels)))
    torch.testing.assert_close(found, torch.stack(expected))
    plain = in_class_loss(logits[:1], teacher, labels, alpha=0.0)
    torch.testing.assert_close(label_loss(logits[0], labels), plain.mean())
    with pytest.raises(MalformedMessage, match="classes 0 to 3"):
        in_class_loss(logits, teacher, labels.where(labels != 1, 9))


def test_split_and_discrepancy_of_masks_are_what_they_are_of_pixels() -> None:
    draws = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, 3, 4, 4, generator=draws)
    flat = logits.permute(0, 1, 3, 4, 2).reshape(2, -1, 3)
    torch.testing.assert_close(discrepancy(logits), discrepancy(flat).reshape(5, 16).sum(1))
    agreed = (logits.argmax(2)[0] == logits.argmax(2)[1]).flatten(1).double().mean(1) > 0.5
    assert consensus_split(logits).tolist() == agreed.tolist()


def test_an_oracle_mistakes_pixels_and_never_those_that_do_not_count() -> None:
    _, masks = street.scenes(0, 20)
    true = torch.from_numpy(masks)
    said = SimulatedOracle(true, street.CLASSES, noise=0.2, seed=1).label(torch.arange(20))
    assert said.dtype == torch.uint8
    assert bool((said[true == IGNORED] == IGNORED).all())
    counted = true != IGNORED
    assert 0.15 < float((said != true)[counted].double().mean()) < 0.25
    assert int(said[counted].max()) < street.CLASSES
    assert torch.equal(SimulatedOracle(true, street.CLASSES).label(torch.arange(20)), true)


def test_a_session_of_masks_learns_and_nothing_crosses_that_is_protected(tmp_path: Path) -> None:
    outcome = simulate(parse_script(session(tmp_path)))[0]
    metrics = outcome.metrics
    assert metrics["score"] == "iou"
    assert metrics["labels"] == [32, 40]
    assert metrics["protected_crossed"] == 0
    assert metrics["server_score"] > 0.6
    # The selection asks students what each pixel is.
    assert outcome.digest != simulate(parse_script(session(tmp_path, terms='selection = "random"')))[0].digest


@pytest.mark.slow
def test_deeplab_and_mobilenet_students_of_torchvisions(tmp_path: Path) -> None:
    text = session(
        tmp_path,
        teacher="torchvision:deeplabv3_mobilenet_v3_large",
        student="torchvision:lraspp_mobilenet_v3_large",
    ).replace("steps = 30", "steps = 2")
    # Its pooling layer normalizes one number a channel then.
    text = text.replace("\nbatch_size = 8", "\nbatch_size = 1")
    metrics = simulate(parse_script(text))[0].metrics
    assert metrics["labels"] == [32, 40]
    assert 0 <= metrics["server_score"] <= 1


def test_masks_are_not_uploaded(tmp_path: Path) -> None:
    text = session(tmp_path, terms='mode = "upload"').replace(
        "min_clients = 2 }", 'min_clients = 2, egress = ["contract", "update", "checkpoint", "sample"] }'
    )
    with pytest.raises(TaskMismatch, match="class each"):
        simulate(parse_script(text))

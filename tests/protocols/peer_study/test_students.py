"""Students learn from labels, from the teacher and from what they differ on; a training can be repeated."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from comity.errors import InvalidValue, TrainingDiverged
from comity.protocols.peer_study.pool import TensorPool
from comity.protocols.peer_study.students import Fitting, Labelled, Losses, PeerStudents, fit_task_model
from comity.randomness import seeded
from comity.training import Secret
from tests.protocols.peer_study.scenes import digits, mlp

SECRET = Secret(b"k", "s")
FEW = Fitting(steps=8)


def some(samples: int = 80) -> tuple[TensorPool, Labelled]:
    """A pool, of which every fourth sample is labelled."""
    inputs, labels = digits()
    indices = torch.arange(0, samples, 4)
    return TensorPool(inputs[:samples]), Labelled(indices, labels[indices])


def teacher() -> nn.Module:
    """A task model as it begins."""
    with seeded(7):
        return mlp(16)().eval()


def trained(
    losses: Losses, peers: int = 2, pool: TensorPool | None = None, taught_by: nn.Module | None = None
) -> Tensor:
    """Logits of students after a training, on samples that they saw."""
    every, labelled = some()
    students = PeerStudents(mlp(12), peers, 3, FEW, losses)
    students.fit(taught_by or teacher(), pool or every, labelled, SECRET, 0)
    assert not students.training
    with torch.no_grad():
        logits: Tensor = students(every.read(torch.arange(20)))
    return logits


def test_a_training_can_be_repeated_and_students_begin_apart() -> None:
    once = trained(Losses())
    assert torch.equal(once, trained(Losses()))
    assert once.shape == (2, 20, 10)
    assert not torch.equal(once[0], once[1])


def test_without_the_teacher_it_is_not_heard() -> None:
    other = mlp(16)().eval()
    assert torch.equal(trained(Losses(alpha=0)), trained(Losses(alpha=0), taught_by=other))
    assert not torch.equal(trained(Losses()), trained(Losses(), taught_by=other))


def test_what_is_not_labelled_is_learned_from_out_of_class_alone() -> None:
    every, labelled = some()
    changed = every.inputs.clone()
    others = torch.ones(len(changed), dtype=torch.bool)
    others[labelled.indices] = False
    # Students are asked about samples that stay as they are.
    others[:20] = False
    changed[others] = 1 - changed[others]
    pool = TensorPool(changed)
    assert torch.equal(trained(Losses(margin=0)), trained(Losses(margin=0), pool=pool))
    assert not torch.equal(trained(Losses(margin=1)), trained(Losses(margin=1), pool=pool))


def test_one_peer_learns_without_out_of_class_steps() -> None:
    assert torch.equal(trained(Losses(margin=1), peers=1), trained(Losses(margin=0), peers=1))


def test_the_teacher_stays_as_it_is_and_the_task_model_learns_its_labels() -> None:
    pool, labelled = some()
    model = teacher()
    before = deepcopy(model.state_dict())
    trained(Losses(), taught_by=model)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())

    fit_task_model(model, pool, labelled, Fitting(steps=120), SECRET)

    assert torch.equal(model(pool.read(labelled.indices)).argmax(dim=1), labelled.labels)


def test_nothing_to_learn_nobody_to_teach_and_no_number_are_refused() -> None:
    pool, labelled = some()
    nothing = Labelled(labelled.indices[:0], labelled.labels[:0])
    students = PeerStudents(mlp(12), 2, 3, FEW)
    with pytest.raises(InvalidValue, match="Labelled samples"):
        students.fit(teacher(), pool, nothing, SECRET)
    with pytest.raises(InvalidValue, match="Labelled samples"):
        fit_task_model(teacher(), pool, nothing, FEW, SECRET)
    with pytest.raises(InvalidValue, match="Peer students"):
        PeerStudents(mlp(12), 0, 3, FEW)
    broken = TensorPool(torch.full_like(pool.inputs, torch.nan))
    with pytest.raises(TrainingDiverged, match="task model"):
        fit_task_model(teacher(), broken, labelled, FEW, SECRET)
    with pytest.raises(TrainingDiverged, match="In-Class"):
        students.fit(teacher(), broken, labelled, SECRET)


def test_a_batch_of_one_sample_passes_batch_normalization() -> None:
    pool, labelled = some()
    one = Labelled(labelled.indices[:1], labelled.labels[:1])

    def normed() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))

    model = normed()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(pool.read(one.indices))
    before = deepcopy(model.state_dict())
    fit_task_model(model, pool, one, FEW, SECRET, 0)
    assert not torch.equal(model.state_dict()["1.weight"], before["1.weight"])
    students = PeerStudents(normed, 2, 3, Fitting(steps=4, pool_batch_size=1))
    students.fit(model, pool, one, SECRET, 0)
    # It goes by what it has seen for such batches alone.
    assert torch.equal(model.state_dict()["2.running_mean"], before["2.running_mean"])
    fit_task_model(model, pool, labelled, FEW, SECRET, 0)
    assert not torch.equal(model.state_dict()["2.running_mean"], before["2.running_mean"])

"""The losses of peer study, and which samples it has annotated.

"Responsible Active Learning via Human-in-the-loop Peer Study", 2022, sections 3.2 and 3.3. P light students learn from
labels and from a teacher; what they disagree on is what a person should label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from comity.errors import InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols.peer_study.choices import IGNORED, Form


def in_class_loss(
    student_logits: Float[Tensor, "peers batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    alpha: float = 0.1,
    temperature: float = 4.0,
) -> Float[Tensor, " batch"]:
    """The In-Class loss, eq. (2), of each sample: what students learn from labels and from the teacher.

    For each student (1 - alpha) CE(y) + alpha tau^2 (-sum p_T log p_S), both softened by tau; summed over students. H is
    printed in another order of its arguments; here it is the cross-entropy of the student against the teacher. No
    gradient reaches the teacher.

    Args:
        student_logits: Of the peers; for segmentation `[peers, batch, classes, height, width]`.
        teacher_logits: `[batch, classes]`, or `[batch, classes, height, width]`.
        labels: The samples' classes, or those of their pixels; of segmentation the mean is taken over the pixels that
            count, those without the label `IGNORED`, and is 0 where none does.
        alpha: The teacher's weight, 0 to 1.
        temperature: Tau, above 0.

    Raises:
        InvalidValue: Alpha or the temperature is out of range.
        MalformedMessage: Shapes do not fit each other, or a label is no class.

    Examples:
        >>> logits = torch.zeros(2, 1, 4)
        >>> in_class_loss(logits, logits[0], torch.tensor([3]), alpha=0.0)
        tensor([2.7726])
    """
    if not 0 <= alpha <= 1:
        raise InvalidValue("The teacher's weight alpha", expected="0 to 1", received=alpha)
    if not 0 < temperature < math.inf:
        raise InvalidValue("The temperature", expected="a finite number above 0", received=temperature)
    _check_peers(student_logits)
    _check_fitting("Logits of the teacher", teacher_logits, student_logits.shape[1:])
    _check_fitting("Labels", labels, student_logits.shape[1:2] + student_logits.shape[3:])
    classes = student_logits.shape[2]
    labels = labels.long()
    counted = labels != IGNORED if labels.ndim > 1 else torch.ones_like(labels, dtype=torch.bool)
    if not bool((((labels >= 0) & (labels < classes)) | ~counted).all()):
        raise MalformedMessage(
            "Labels", expected=f"classes 0 to {classes - 1}", received=sorted({*labels.flatten().tolist()})[:20]
        )
    told = (teacher_logits.detach() / temperature).softmax(dim=1)
    softened = log_softmax(student_logits / temperature, dim=2)
    from_teacher = -(told * softened).sum(dim=2)
    known = labels.where(counted, 0)
    from_labels = torch.stack([cross_entropy(each, known, reduction="none") for each in student_logits])
    both = (1 - alpha) * from_labels + alpha * temperature**2 * from_teacher
    if both.ndim == 2:
        return both.sum(dim=0)
    pixels = counted.flatten(start_dim=1)
    return ((both.flatten(start_dim=2) * pixels).sum(dim=2) / pixels.sum(dim=1).clamp(min=1)).sum(dim=0)


def consensus_split(student_logits: Float[Tensor, "peers batch classes"]) -> Bool[Tensor, " batch"]:
    """Which samples two peers agree on, eqs. (3) and (4): True in S_A, False in S_D, where all peers differ.

    Of segmentation, `[peers, batch, classes, height, width]`, a pair agrees where more than half of the pixels do. More
    peers than classes always agree somewhere; one peer agrees with none.

    Raises:
        MalformedMessage: The logits are not of this shape.

    Examples:
        >>> first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> consensus_split(torch.stack([first, second]))
        tensor([ True, False])
    """
    _check_peers(student_logits)
    said = student_logits.argmax(dim=2)
    agreed = torch.zeros(said.shape[1], dtype=torch.bool, device=said.device)
    for one, other in combinations(said, 2):
        same = one == other
        agreed |= same.flatten(start_dim=1).double().mean(dim=1) > 0.5 if same.ndim > 1 else same
    return agreed


def discrepancy(student_logits: Float[Tensor, "peers batch classes"]) -> Float[Tensor, " batch"]:
    """How much the peers disagree on each sample, eq. (6): the sum over ordered pairs of KL(p_j || p_k).

    Summed over pixels for segmentation, `[peers, batch, classes, height, width]`. Of one peer, whose discrepancy would be
    0 everywhere, it is the entropy. Gradients reach all peers.

    Returns:
        0 or more, and 0 exactly where all peers say the same.

    Raises:
        MalformedMessage: The logits are not of this shape.

    Examples:
        >>> sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> discrepancy(torch.stack([sure, unsure]))
        tensor([1.9281])
        >>> discrepancy(unsure[None])
        tensor([0.6931])
    """
    _check_peers(student_logits)
    logs = log_softmax(student_logits, dim=2)
    chances = logs.exp()
    if len(logs) == 1:
        each = -(chances[0] * logs[0])
    else:
        # Both orders of a pair at once: no term is below 0, and equal peers give 0 exactly.
        each = torch.zeros_like(logs[0])
        for one, other in combinations(range(len(logs)), 2):
            each = each + (chances[one] - chances[other]) * (logs[one] - logs[other])
    return each.flatten(start_dim=1).sum(dim=1)


def pair(
    consensus: Bool[Tensor, " batch"], generator: torch.Generator | None = None
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Pairs of a sample of S_D and one of S_A by chance, as many as the smaller of both has.

    Args:
        consensus: What `consensus_split` says.
        generator: What chance is drawn from.

    Returns:
        Indices in S_D, and in S_A in the same order; both are empty where either set is.
    """
    dissenting, agreeing = (~consensus).nonzero().flatten(), consensus.nonzero().flatten()
    pairs = min(len(dissenting), len(agreeing))

    def drawn(indices: Tensor) -> Tensor:
        return indices[torch.randperm(len(indices), generator=generator)[:pairs].to(indices.device)]

    return drawn(dissenting), drawn(agreeing)


def out_of_class_loss(
    dissent: Float[Tensor, " pairs"],
    consensus: Float[Tensor, " pairs"],
    margin: float = 0.01,
    *,
    form: Form = "printed",
) -> Float[Tensor, " pairs"]:
    """The Out-of-Class loss, eq. (5), of each pair: peers move apart on what they differ on.

    Args:
        dissent: d_D, the `discrepancy` of samples of S_D.
        consensus: d_A, of the samples of S_A that they are paired with; see `pair`.
        margin: Xi, 0 or more.
        form: `printed`, max(0, xi - |d_D - d_A|), or `directed`, max(0, xi - (d_D - d_A)), which the prose means.

    Returns:
        0 or more; nothing where there is no pair.

    Raises:
        InvalidValue: The margin is out of range, or there is no such form.
        MalformedMessage: There are not as many of both.

    Examples:
        >>> out_of_class_loss(torch.tensor([0.5]), torch.tensor([1.0]), margin=1.0)
        tensor([0.5000])
        >>> out_of_class_loss(torch.tensor([0.5]), torch.tensor([1.0]), margin=1.0, form="directed")
        tensor([1.5000])
    """
    if not 0 <= margin < math.inf:
        raise InvalidValue("The margin xi", expected="a finite number, 0 or more", received=margin)
    if form not in get_args(Form):
        raise InvalidValue("The form of the Out-of-Class loss", expected=" or ".join(get_args(Form)), received=form)
    _check_fitting("Discrepancies of the consensus set", consensus, dissent.shape)
    difference = dissent - consensus
    return (margin - (difference.abs() if form == "printed" else difference)).clamp(min=0)


def select(
    discrepancy: Float[Tensor, " pool"], budget: int, candidates: Int[Tensor, " candidates"]
) -> Int[Tensor, " budget"]:
    """The candidates that the peers disagree on most, to be annotated.

    Args:
        discrepancy: The score of each sample of the pool; see `discrepancy`.
        budget: How many, 0 to the number of candidates.
        candidates: Indices of those that may be annotated, each once: never a protected sample.

    Returns:
        Indices, the greatest score first; of equal scores the least index is first.

    Raises:
        InvalidValue: The budget is out of range.
        MalformedMessage: A candidate is not in the pool, or is there twice.
        NonFiniteValue: A candidate's score is NaN or infinite.

    Examples:
        >>> select(torch.tensor([0.1, 9.0, 0.5, 0.3]), budget=2, candidates=torch.tensor([0, 2, 3]))
        tensor([2, 3])
    """
    if candidates.ndim != 1 or candidates.dtype != torch.int64:
        raise MalformedMessage(
            "Candidates",
            expected="indices, int64 in one dimension",
            received=f"{candidates.dtype} {list(candidates.shape)}",
        )
    ordered = candidates.unique()
    if len(ordered) < len(candidates) or bool(((ordered < 0) | (ordered >= len(discrepancy))).any()):
        raise MalformedMessage(
            "Candidates",
            expected=f"indices from 0 to {len(discrepancy) - 1}, each once",
            received=f"{len(candidates)}, of which {len(ordered)} differ",
        )
    if not 0 <= budget <= len(ordered):
        raise InvalidValue("The budget", expected=f"0 to {len(ordered)}, the number of candidates", received=budget)
    scores = discrepancy[ordered]
    if not bool(torch.isfinite(scores).all()):
        raise NonFiniteValue("Scores of candidates", expected="finite values", received="NaN or infinity")
    chosen: Tensor = ordered[scores.sort(descending=True, stable=True).indices[:budget]]
    return chosen


def average(models: Sequence[Mapping[str, Tensor]], weights: Sequence[int]) -> dict[str, Tensor]:
    """The mean of state dicts, weighted (section 4.5): of parameters and buffers; of counters the greatest.

    Args:
        models: One or more, of the same names, shapes and dtypes; they stay as they are.
        weights: Of each, above 0: how many labels it was trained on.

    Returns:
        In the dtypes that they have; sums are taken in float32, or wider.
    """
    total = sum(weights)
    mean = {}
    for name, first in models[0].items():
        if not first.is_floating_point():
            mean[name] = torch.stack([model[name] for model in models]).amax(dim=0)
            continue
        summed = torch.zeros(first.shape, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
        for model, weight in zip(models, weights, strict=True):
            summed.add_(model[name], alpha=weight / total)
        mean[name] = summed.to(first.dtype)
    return mean


def _check_peers(logits: Tensor) -> None:
    if logits.ndim not in (3, 5) or 0 in (logits.shape[0], logits.shape[2]):
        raise MalformedMessage(
            "Logits of peers",
            expected="peers x batch x classes, for segmentation by height and width",
            received=f"shape {list(logits.shape)}",
        )


def _check_fitting(what: str, tensor: Tensor, shape: torch.Size) -> None:
    if tensor.shape != shape:
        raise MalformedMessage(what, expected=f"shape {list(shape)}", received=f"shape {list(tensor.shape)}")

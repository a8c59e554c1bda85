"""The losses of learning to help and the rule that they approximate.

Wu et al., "Learning to Help in Multi-Class Settings", ICLR 2025. A client's model m is fixed. Its rejector r says, input
by input, LOCAL or REMOTE; the server's classifier e answers what is REMOTE. `c_e` is the cost of asking, `c_1` that of a
wrong answer from the server; a wrong answer of m costs 1.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from comity.errors import InvalidValue, MalformedMessage, NonFiniteValue
from comity.protocols.learning_to_help.choices import Form

LOCAL, REMOTE = 0, 1
"""The rejector's two logits, r_1 and r_2 of the paper."""


def check_costs(c_e: float, c_1: float) -> None:
    """Whether these are costs for which asking can pay.

    Raises:
        InvalidValue: `c_e` is outside [0, 1): with 1 or more, never asking is best; or `c_1` is below 0 or not finite.
    """
    if not 0 <= c_e < 1:
        raise InvalidValue(
            "The cost c_e of asking the server",
            expected="0 or more and below 1, the cost of a wrong answer",
            received=c_e,
        )
    if not 0 <= c_1 < math.inf:
        raise InvalidValue(
            "The cost c_1 of a wrong answer from the server", expected="a finite number, 0 or more", received=c_1
        )


def generalized_zero_one_loss(
    remote: Bool[Tensor, " batch"],
    local_correct: Bool[Tensor, " batch"],
    server_correct: Bool[Tensor, " batch"],
    c_e: float,
    c_1: float,
) -> Float[Tensor, " batch"]:
    """What a decision and its answer cost: the generalized 0-1 loss. Its mean is the risk.

    Args:
        remote: True where the server was asked.
        local_correct: Whether m is right.
        server_correct: Whether e is right.
        c_e: The cost of asking, in [0, 1).
        c_1: The cost of a wrong answer from the server, 0 or more, beside `c_e`.

    Returns:
        Float64: 0 or 1 where m answered, c_e or c_e + c_1 where e did.

    Raises:
        InvalidValue: A cost is out of range.
        MalformedMessage: The three differ in shape or are not boolean.

    Examples:
        >>> generalized_zero_one_loss(
        ...     torch.tensor([False, False, True, True]),
        ...     torch.tensor([True, False, False, False]),
        ...     torch.tensor([True, True, True, False]),
        ...     c_e=0.25,
        ...     c_1=1.25,
        ... )
        tensor([0.0000, 1.0000, 0.2500, 1.5000], dtype=torch.float64)
    """
    check_costs(c_e, c_1)
    _check_flags(remote.shape, remote=remote, local_correct=local_correct, server_correct=server_correct)
    asked = c_e + c_1 * (~server_correct).to(torch.float64)
    return torch.where(remote, asked, (~local_correct).to(torch.float64))


def bayes_rule(
    eta: Float[Tensor, "batch classes"], local_prediction: Int[Tensor, " batch"], c_e: float, c_1: float
) -> Bool[Tensor, " batch"]:
    """The decision that costs least where the classes' probabilities are known, beside e = argmax eta.

    LOCAL where eta of m's class is above (1 - c_e - c_1) + c_1 max eta. Where both cost the same it is REMOTE, as the
    paper's inequality has it.

    Args:
        eta: P(Y = i | X = x), one row an input.
        local_prediction: The class that m predicts.
        c_e: The cost of asking, in [0, 1).
        c_1: The cost of a wrong answer from the server, 0 or more.

    Returns:
        True where the server is asked.

    Raises:
        InvalidValue: A cost is out of range.
        MalformedMessage: There is not one prediction a row, or one is no class.
        NonFiniteValue: A probability is NaN or infinite.

    Examples:
        >>> bayes_rule(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([0, 0]), c_e=0.25, c_1=0.5)
        tensor([False,  True])
    """
    check_costs(c_e, c_1)
    if eta.ndim != 2 or local_prediction.shape != eta.shape[:1]:
        raise MalformedMessage(
            "Predictions of the local model",
            expected=f"one for each row of eta {tuple(eta.shape)}",
            received=f"shape {tuple(local_prediction.shape)}",
        )
    if not bool(torch.isfinite(eta).all()):
        raise NonFiniteValue("The classes' probabilities", expected="finite values", received="NaN or infinity")
    if not bool(((local_prediction >= 0) & (local_prediction < eta.shape[1])).all()):
        raise MalformedMessage(
            "Predictions of the local model",
            expected=f"classes 0 to {eta.shape[1] - 1}",
            received=sorted({*local_prediction.tolist()}),
        )
    chosen = eta.gather(1, local_prediction[:, None])[:, 0]
    return ~(chosen > (1 - c_e - c_1) + c_1 * eta.amax(dim=1))


def server_loss(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """L_1 of the surrogate loss: the cross-entropy of e, over all training samples, whoever answers them.

    Args:
        logits: e(x).
        labels: y.

    Raises:
        MalformedMessage: There is not one label a row, or one is no class.

    Examples:
        >>> server_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.6931])
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise MalformedMessage(
            "Labels", expected=f"one for each row of logits {tuple(logits.shape)}", received=tuple(labels.shape)
        )
    if not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        raise MalformedMessage(
            "Labels", expected=f"classes 0 to {logits.shape[1] - 1}", received=sorted({*labels.tolist()})
        )
    return cross_entropy(logits, labels, reduction="none")


def rejector_loss(
    logits: Float[Tensor, "batch 2"],
    local_correct: Bool[Tensor, " batch"],
    server_correct: Bool[Tensor, " batch"],
    c_e: float,
    c_1: float,
    *,
    form: Form = "shifted",
) -> Float[Tensor, " batch"]:
    """L_2 of the surrogate loss: -w log p_REMOTE - v log p_LOCAL, w = 1 - c_e - c_1 + c_1 1[e = y], v = 1[m = y].

    Whether m and e are right are facts here: no gradient reaches either. Where c_e + c_1 > 1, w is negative for a wrong
    e and the printed loss has no lower bound. `shifted` adds max(0, c_e + c_1 - 1) to both weights, which leaves the
    decision that minimizes the expected loss what it was, and makes the loss convex in the logits and 0 or more.

    Args:
        logits: r(x): LOCAL, REMOTE.
        local_correct: 1[m = y].
        server_correct: 1[e = y].
        c_e: The cost of asking, in [0, 1).
        c_1: The cost of a wrong answer from the server, 0 or more.
        form: `shifted`, or `paper` as printed.

    Raises:
        InvalidValue: A cost is out of range, or there is no such form.
        MalformedMessage: There are not two logits a row, or not one flag of each kind.

    Examples:
        >>> right, wrong = torch.tensor([True]), torch.tensor([False])
        >>> rejector_loss(torch.tensor([[0.0, 0.0]]), wrong, right, c_e=0.25, c_1=0.5)
        tensor([0.5199])
    """
    check_costs(c_e, c_1)
    if form not in get_args(Form):
        raise InvalidValue("The form of the rejector's loss", expected=" or ".join(get_args(Form)), received=form)
    _check_rejector(logits)
    _check_flags(logits.shape[:1], local_correct=local_correct, server_correct=server_correct)
    shift = max(0.0, c_e + c_1 - 1) if form == "shifted" else 0.0
    remote_weight = torch.where(server_correct, 1 - c_e, 1 - c_e - c_1) + shift
    local_weight = local_correct.to(torch.float64) + shift
    chances = log_softmax(logits, dim=1)
    return -(remote_weight.to(logits) * chances[:, REMOTE] + local_weight.to(logits) * chances[:, LOCAL])


def rejector_scores(logits: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
    """How much r would ask: r_2 - r_1. Above 0 it asks; `fit_reject_rule` finds a threshold for a bounded rate.

    Raises:
        MalformedMessage: There are not two logits a row.
    """
    _check_rejector(logits)
    return logits[:, REMOTE] - logits[:, LOCAL]


def decide(logits: Float[Tensor, "batch 2"]) -> Bool[Tensor, " batch"]:
    """True where r says REMOTE; where its logits are equal, or one of them is NaN, it is LOCAL.

    Raises:
        MalformedMessage: There are not two logits a row.

    Examples:
        >>> decide(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
        tensor([ True, False, False])
    """
    return rejector_scores(logits) > 0


def _check_rejector(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise MalformedMessage(
            "Logits of a rejector",
            expected="two for each input, LOCAL and REMOTE",
            received=f"shape {tuple(logits.shape)}",
        )


def _check_flags(shape: torch.Size, **flags: Tensor) -> None:
    for name, each in flags.items():
        if each.shape != shape or each.ndim != 1 or each.dtype != torch.bool:
            raise MalformedMessage(
                name,
                expected=f"{' x '.join(map(str, shape))} booleans",
                received=f"shape {tuple(each.shape)} of {each.dtype}",
            )

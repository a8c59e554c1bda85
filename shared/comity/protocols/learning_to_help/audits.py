"""What a peer could have learned from what left: `comity audit features|membership|reconstruction`.

A client sends its model and features, a server the rejector, or copies of its classifier; each audit looks at what the node's own side sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool
from torch import nn
from torch.nn.functional import cross_entropy

from comity.contract import Json
from comity.data import Splits
from comity.errors import InvalidValue
from comity.privacy import inversion
from comity.protocol.audits import AuditContext
from comity.protocols.learning_to_help.algorithm import rejector_loss
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.task import LOCAL, REJECTOR, SERVER, HelpTask, helping_terms
from comity.tensors import Layout, State
from comity.training import audits


def features(context: AuditContext) -> Mapping[str, Json]:
    """How well the client's test samples can be reconstructed from the 8-bit features that a query carries.

    The map from features to inputs is fitted to the client's training samples: a server has such of its own, and the model.

    Raises:
        InvalidValue: The model that was sent was not kept, or there are too few samples.
    """
    party = context.require_party()
    task: HelpTask = party.task(None)
    sent = [each.blob for each in party.sent if each.kind == "local_model"]
    if not sent:
        raise InvalidValue(
            "no model that makes features left this node",
            expected="a client's session",
            received=", ".join(sorted({each.kind for each in party.sent})),
            action="run the audit at the client's node",
        )
    task.load(LOCAL, Layout.unpack(sent[0]))
    quantization = task.quantization()

    def seen(inputs: Any) -> torch.Tensor:
        return quantization.decode(quantization.encode(task.map(inputs)[1])).cpu()

    known = task.inputs("train")
    if isinstance(party.data, Splits) and task.labels("test") is not None:
        unseen = task.inputs("test")
    else:
        known, unseen = known[::2], known[1::2]
    found = inversion.reconstruction(seen(known), known.cpu(), seen(unseen), unseen.cpu())
    return found | {"bytes_per_input": task.feature_size, "values_per_input": int(known[0].numel())}


def membership(context: AuditContext) -> Mapping[str, Json]:
    """How well one can tell who was trained on: by a client's model, or by a server's rejector or copies of its classifier.

    Of a rejector, LiRA is not tried: how well it does by a sample is no class's probability alone.

    Raises:
        InvalidValue: Nothing that was trained was kept.
    """
    party = context.require_party()
    members, everything = audits.together(party.data, 1)
    of_all: HelpTask = party.task(Splits(everything, None))
    if (state := _sent(context, "local_model")) is not None:
        labels = everything.labels

        def losses(of: State) -> torch.Tensor:
            of_all.load(LOCAL, of)
            said = of_all.map(of_all.inputs("train"))[0]
            return cross_entropy(said.cpu().double(), labels, reduction="none")

        def shadow(half: torch.Tensor, number: int) -> torch.Tensor:
            del number
            return losses(party.task(Splits(everything.select(half), None)).local)

        is_trained_here = not context.contract.models[LOCAL].initial
        found = audits.told_apart(losses(state)[None], members, shadow if is_trained_here else None)
        return found | {"blobs_not_kept": party.not_kept}
    asked, terms = _asked_about(context, of_all), helping_terms(context.contract)
    if terms.training == "client":

        def losses_of_copy(of: State) -> torch.Tensor:
            of_all.load(SERVER, of)
            return cross_entropy(of_all.answers(asked.seen).double(), everything.labels, reduction="none")

        def shadow_copy(half: torch.Tensor, number: int) -> torch.Tensor:
            del number
            some: HelpTask = party.task(Splits(everything.select(half), None))
            return losses_of_copy(some.server_training(asked.local, asked.quantization).finish().state_dict())

        copies = torch.stack([losses_of_copy(each) for each in asked.sent])
        return audits.told_apart(copies, members, shadow_copy) | {"blobs_not_kept": party.not_kept}
    of_all.load(REJECTOR, asked.sent[0])
    # e is right on nearly everything; who looks on knows no better.
    right = torch.ones_like(asked.local_correct)
    judged = of_all.scores(asked.judged).cpu()
    told = rejector_loss(judged, asked.local_correct, right, terms.c_e, terms.c_1, form=terms.form)
    return audits.told_apart(told[None], members) | {"blobs_not_kept": party.not_kept}


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which samples the change of what was trained shows: of what a server sent, whose inputs are features, which features.

    Raises:
        InvalidValue: Nothing that was trained was kept.
    """
    party = context.require_party()
    task: HelpTask = party.task(None)
    first = task.initial
    if (state := _sent(context, "local_model")) is not None:
        change = {name: state[name] - first[LOCAL][name] for name, _ in task.model(LOCAL).named_parameters()}
        found = audits.reconstruction([change], party.data.train, task.model(LOCAL), first[LOCAL])
        return found | {"blobs_not_kept": party.not_kept}
    asked = _asked_about(context, task)
    is_copies = helping_terms(context.contract).training == "client"
    trained, inputs = (SERVER, asked.seen) if is_copies else (REJECTOR, asked.judged)
    states = [first[trained], *asked.sent]
    samples = inputs.flatten(1).cpu()
    layer = next(
        (
            name
            for name, each in task.model(trained).named_modules()
            if isinstance(each, nn.Linear) and each.in_features == samples.shape[1]
        ),
        None,
    )
    found = {"changes": len(asked.sent), "samples": len(samples), "first_layer": layer}
    if layer is not None:
        name = f"{layer}.weight"
        found |= audits.rows_shown([after[name] - before[name] for before, after in pairwise(states)], samples)
    return found | {"blobs_not_kept": party.not_kept}


def _sent(context: AuditContext, kind: str) -> State | None:
    """The one model of a kind that left."""
    blobs = [each.blob for each in context.require_party().sent if each.kind == kind]
    return Layout.unpack(blobs[0]) if blobs else None


@dataclass(frozen=True)
class _Asked:
    """What a server sent, and what it was trained on.

    Attributes:
        sent: The rejector, or the copies of the classifier, in their order.
        local: The client's model.
        quantization: The range of its features.
        seen: The features that samples have by it, as they cross.
        judged: What the rejector goes by, of the same.
        local_correct: Whether the client's model is right on them.
    """

    sent: Sequence[State]
    local: State
    quantization: Quantization
    seen: torch.Tensor
    judged: torch.Tensor
    local_correct: Bool[torch.Tensor, " samples"]


def _asked_about(context: AuditContext, of: HelpTask) -> _Asked:
    """What a server sent, and what it was trained on, with the samples of a task.

    Raises:
        InvalidValue: Nothing of it was kept.
    """
    sent = [Layout.unpack(each.blob) for each in context.require_party().sent if each.kind == "checkpoint"]
    asked: list[Mapping[str, Any]] = [
        each.fields for each in context.store.records(context.contract.session) if each.kind == "asked"
    ]
    local = context.require_party().copy(bytes.fromhex(asked[0]["local"])) if asked else None
    if not sent or local is None:
        raise InvalidValue(
            "nothing that was trained for this session is here",
            expected="a client's model, or the rejector or copies of a server that still has the model of its client",
            received=", ".join(sorted({each.kind for each in context.require_party().sent})),
            action="set [audit] keep = true before a session, and run the audit before comity gc",
        )
    state = Layout.unpack(local)
    of.load(LOCAL, state)
    inputs = of.inputs("train")
    said, features = of.map(inputs)
    quantization = Quantization(asked[0]["minimum"], asked[0]["maximum"])
    seen = quantization.decode(quantization.encode(features))
    labels = of.labels("train")
    assert labels is not None  # noqa: S101 - the inputs of the same samples were there
    correct = said.argmax(dim=1).cpu() == labels
    return _Asked(sent, state, quantization, seen, of.judged(inputs, said, seen), correct)

"""What a server could have learned from a client's models: `comity audit membership|reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from comity.contract import Json
from comity.data import Dataset
from comity.errors import InvalidValue
from comity.protocol.audits import AuditContext
from comity.protocols.peer_study.students import Labelled
from comity.protocols.peer_study.task import StudyTask, study_terms
from comity.tensors import Layout, State
from comity.training import audits


def membership(context: AuditContext) -> Mapping[str, Json]:
    """How well a server can tell which samples were labelled, by the models that left."""
    party, terms = context.require_party(), study_terms(context.contract)
    task: StudyTask = party.task(None)
    # Those who were labelled later were not in the earlier models.
    last = max((round for round, _ in _models(context)), default=0)
    first = terms.step_of(last) * terms.rounds_per_step
    models = [state for round, state in _models(context) if round > first]
    splits = replace(party.data, train=_labelled(context, task))
    steps = min(terms.steps * terms.rounds_per_step, audits.MOST_ITERATIONS)
    found = audits.membership(models, splits, task.trained_on, terms.optimizer_spec, steps)
    return found | {"blobs_not_kept": party.not_kept}


def reconstruction(context: AuditContext) -> Mapping[str, Json]:
    """Which labelled samples a model shows, against what its training began with.

    That is the session's first model in rounds that begin afresh. In others it is the average, which is not kept: there the
    client's own model of the round before stands for it.
    """
    party, terms = context.require_party(), study_terms(context.contract)
    task: StudyTask = party.task(None)
    initial = task.initial_state
    changes: list[State] = []
    for (_, before), (round, after) in pairwise([(0, initial), *_models(context)]):
        begins = round == 1 or (terms.begins_step(round) and terms.restart)
        start = initial if begins else before
        changes.append({name: after[name].double() - start[name].double() for name, _ in task.model.named_parameters()})
    found = audits.reconstruction(changes, _labelled(context, task), task.model, initial)
    return found | {"blobs_not_kept": party.not_kept}


def _models(context: AuditContext) -> list[tuple[int, State]]:
    """The models that left, with their rounds.

    Raises:
        InvalidValue: None did, since samples leave in this session.
    """
    if study_terms(context.contract).uploads:
        raise InvalidValue(
            "there is no model to be audited",
            expected='a session whose terms say mode = "federated"',
            received="one in which samples leave as they are",
            action="see its consents in comity show, and what left in comity ledger show",
        )
    party = context.require_party()
    layout = party.task(None).layout
    return [(each.units.first, layout.view(each.blob.data)) for each in party.sent if each.kind == "update"]


def _labelled(context: AuditContext, task: StudyTask) -> Dataset:
    """The samples that models were trained on, with what was said of them.

    Raises:
        InvalidValue: The session's journal is gone.
    """
    records = context.store.records(context.contract.session)
    labelled: list[Mapping[str, Any]] = [each.fields for each in records if each.kind == "labelled"]
    said = context.require_party().copy(bytes.fromhex(labelled[-1]["labels"])) if labelled else None
    if said is None:
        raise InvalidValue(
            "which samples were labelled is not known any more",
            expected="the session's journal",
            received="none",
            action="set [audit] keep = true before a session, and run the audit before comity gc",
        )
    kept = Layout.unpack(said)
    return task.own_pool.labelled(Labelled(kept["indices"], kept["labels"]))

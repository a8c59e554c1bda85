"""A session, from the side of the party that asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from comity.contract import (
    INITIAL,
    Contract,
    HeadSpec,
    InputSpec,
    Membership,
    ModelSpec,
    Preprocessing,
    Price,
    TaskSpec,
    Terms,
)
from comity.errors import DataChanged, InvalidValue, NodeDraining, StorageError, TooManyCalls, TransportError
from comity.node.party import LocalParty
from comity.node.sessions.agreement import Negotiation
from comity.node.sessions.kept import stored_contract
from comity.node.sessions.script import MODEL, ModelSection, Script, SessionSection, TaskSection
from comity.node.validation import validated
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol
from comity.protocol.roles import Initiator, run
from comity.session.events import Observer, finished_rounds
from comity.session.outcome import Outcome
from comity.session.stopping import require_usable_target
from comity.session.waiting import OFFLINE
from comity.store.store import StoredSession
from comity.tasks import require_usable, task_kind
from comity.transport.bindings.remote import RemoteChannel
from comity.transport.negotiation import require_models, require_task_kind
from comity.transport.peer_connection import PeerConnection

PASSING = (TransportError, StorageError, NodeDraining, TooManyCalls, DataChanged)
"""Errors that are not the session's fault: it goes on when they have passed."""


def draft_contract(script: Script, party: LocalParty, session: str) -> tuple[Contract, ProtocolDefinition]:
    """The contract that a script describes.

    Args:
        script: The script.
        party: The party that drafts it: the one that asks, or, of a session that many join, the one that helps. Where
            the script does not say what the task is, it is that of its data.
        session: Identifier, for scripts that give none.

    Raises:
        UsageError: The script cannot be used.
        RefusedError: This installation lacks the protocol or the model.
    """
    wanted = script.session
    definition = protocol(wanted.protocol)
    several = definition.topology.many_acceptors
    if len(wanted.acceptors) != len(set(wanted.acceptors)) or (len(wanted.acceptors) > 1 and not several):
        raise InvalidValue(
            "session.acceptors cannot be used",
            expected=f"each {definition.acceptor} once" if several else f"one {definition.acceptor}",
            received=", ".join(wanted.acceptors),
            action="name each once" if several else "name one; a session with another is another session",
        )
    identifier = wanted.id or session
    task = _task(wanted, party, identifier)
    require_task_kind(task.kind, definition)
    terms = validated(definition.terms, wanted.terms, "session.terms")
    require_usable_target(terms, task.kind)
    specs = {name: each.spec(party.weights_named) for name, each in _models(wanted, definition, terms).items()}
    contract = Contract(
        protocol=definition.name,
        version=definition.version,
        session=identifier,
        seed=wanted.seed,
        rounds=wanted.rounds,
        models=specs,
        task=task,
        initiator="" if definition.topology.is_joined else party.name,
        acceptors=wanted.acceptors,
        egress=(*definition.egress_of(terms), *_sent_weights(party, specs)),
        max_silence_s=wanted.max_silence_s,
        max_duration_s=wanted.max_duration_s,
        price=_price(wanted, definition),
        terms=definition.load().task.complete(terms, party.holdings.data),
    )
    party.try_apart(contract)
    return party.signed(contract), definition


def _sent_weights(party: LocalParty, models: Mapping[str, ModelSpec]) -> tuple[str, ...]:
    """What lets weights to begin with cross: the policy of the party that drafts, which has them."""
    has_some = any(each.initial for each in models.values())
    return (INITIAL,) if has_some and party.config.policy.may_leave(INITIAL) else ()


def _price(wanted: SessionSection, definition: ProtocolDefinition) -> Price | None:
    """What a script says of the price; its rule is one that the protocol's sessions can be reckoned by.

    Raises:
        InvalidValue: It is not.
    """
    table = definition.presentation.per_round
    if wanted.price is not None and wanted.price.rule == "by_share" and (table is None or not table.share):
        raise InvalidValue(
            "session.price.rule cannot be used",
            expected=f"each: {definition.name} does not say what a party's part in a round was worth",
            received=wanted.price.rule,
            action='set rule = "each"',
        )
    return wanted.price


def _models(wanted: SessionSection, definition: ProtocolDefinition, terms: Terms) -> dict[str, ModelSection]:
    """A script's models, which are those that the protocol has."""
    given, models = wanted.named_models, definition.models_of(terms)
    for name in models:
        if name not in given:
            raise InvalidValue(
                f"session.models.{name} is missing",
                expected=", ".join(f"[session.models.{each}]" for each in models),
                received=", ".join(given) or "no model",
                action="name the model" if models != (MODEL,) else 'set session.model.name, such as "mlp"',
            )
    require_models(given, definition, terms)
    return given


def _task(wanted: SessionSection, party: LocalParty, session: str) -> TaskSpec:
    """What a script says that the models are for; where it does not, what the party's data are for.

    Raises:
        InvalidValue: What it says cannot be used, or does not go with the data.
    """
    section, preprocessing = wanted.task, _normalization(wanted, party)
    if section is None:
        return _own_task(wanted, party, session, preprocessing)
    if section.input_shape:
        kind = task_kind(section.kind or "classification")
        heads, classes = section.heads, section.classes
        if classes is not None and not heads:
            size, labels = (classes, ()) if isinstance(classes, int) else (len(classes), classes)
            heads = (HeadSpec(name=kind.head, size=size, labels=labels),)
        inputs = {"shape": section.input_shape, "features": section.features, "preprocessing": preprocessing}
        task = TaskSpec(
            kind=kind.name,
            options=section.options,
            inputs=validated(InputSpec, inputs, "session.task"),
            heads=heads,
        )
    else:
        task = _with(section, _own_task(wanted, party, session, preprocessing))
    task = _weighed(task, section.weights)
    require_usable(task)
    return task


def _own_task(wanted: SessionSection, party: LocalParty, session: str, preprocessing: Preprocessing) -> TaskSpec:
    """The task that the party's data are for, with targets that are scaled where the script has that computed."""
    own = party.holdings.task_spec(preprocessing, session)
    return party.holdings.scaled(own) if wanted.normalization == "computed" else own


def _with(section: TaskSection, own: TaskSpec) -> TaskSpec:
    """A task of data with what a script says of it."""
    said = section.model_dump(include={"kind", "classes", "features"}, exclude_defaults=True, exclude_none=True)
    if said.pop("kind", own.kind) != own.kind or said:
        raise InvalidValue(
            "session.task does not go with the data",
            expected=task_kind(own.kind).described(own),
            received=", ".join(said) or section.kind,
            action="leave out what the data say, or give input_shape too",
        )
    return own.model_copy(update={"options": {**own.options, **section.options}, "heads": section.heads or own.heads})


def _weighed(task: TaskSpec, weights: Sequence[float]) -> TaskSpec:
    """A task with one head, whose classes, labels or targets weigh so much."""
    if not weights:
        return task
    if len(task.heads) != 1 or len(weights) != task.heads[0].size:
        raise InvalidValue(
            "session.task.weights cannot be used",
            expected=f"{task.heads[0].size}, one for each" if len(task.heads) == 1 else "weights in session.task.heads",
            received=f"{len(weights)}",
            action="give one for each class, label or target",
        )
    head = validated(HeadSpec, {**task.heads[0].model_dump(), "weights": tuple(weights)}, "session.task")
    return task.model_copy(update={"heads": (head,)})


def _normalization(wanted: SessionSection, party: LocalParty) -> Preprocessing:
    """What is done to every input: as the script says, or as the party's training samples are."""
    if isinstance(wanted.normalization, Preprocessing):
        return wanted.normalization
    return party.holdings.normalization()


def run_session(
    negotiation: Negotiation,
    connections: Sequence[PeerConnection],
    observe: Observer,
    begin: Callable[[Initiator], None] = lambda role: None,  # noqa: ARG005
) -> Outcome:
    """Works on a session over the network, from the proposal, or from where it stopped; returns what it came to.

    Args:
        negotiation: What to propose.
        connections: The lines to the acceptors, in the contract's order.
        observe: Is told what happens.
        begin: Is given the role before it works.

    Raises:
        ComityError: An acceptor refused, could not be reached, or the session failed.
    """
    contract, definition, party = negotiation.contract, negotiation.definition, negotiation.party
    peers = negotiation.agree(connections)
    observe(definition.started(contract, definition.initiator, contract.acceptors))
    for event in finished_rounds(party.store.records(contract.session)):
        # Observers after a restart see what was before it.
        observe(event)
    place = party.session_context(contract, negotiation.own, observe, peers, negotiation.waits)
    contexts = [
        party.peer_context(place, peer, presence=connection.presence)
        for peer, connection in zip(peers, connections, strict=True)
    ]
    channels = [RemoteChannel(connection) for connection in connections]
    role = definition.load().connected(contexts, channels)
    begin(role)
    (outcome,) = run(role)
    return outcome


def stored(contract: Contract, own: Membership, *peers: Membership, promised: int = 0) -> StoredSession:
    """A session that is entered now, as the store keeps it.

    Args:
        contract: Its contract.
        own: This party's part in it.
        peers: The others' parts, as far as they are known.
        promised: What it may take on disk, in bytes.
    """
    return StoredSession(
        contract.session,
        contract.model_dump(mode="json"),
        own.model_dump(mode="json"),
        tuple(each.model_dump(mode="json") for each in peers),
        begun=datetime.now(UTC).isoformat(timespec="milliseconds"),
        promised=promised,
    )


def require_same(kept: StoredSession, contract: Contract, *, joins: bool = False) -> None:
    """Checks that a session that is on is the one that is asked for: somebody asks again who could not hear the answer.

    Args:
        kept: The session that there is.
        contract: What is asked for.
        joins: Whether this party would join it, and another gave it its identifier.

    Raises:
        InvalidValue: It is another, or over.
    """
    session = kept.session
    if kept.is_on and stored_contract(kept)[0].hash == contract.hash:
        return
    opener = contract.acceptors[0] if contract.acceptors else "the other party"
    instead = f"ask {opener} to open another session" if joins else "leave out session.id, or give another"
    raise InvalidValue(
        "the session's id is taken",
        expected="a new id" if kept.is_on else f"a new id, since that session is {kept.state}",
        received=session,
        action=f"{instead}; comity show {session} shows the one that there is",
    )


def is_offline(session: StoredSession) -> bool:
    """Whether a session's rounds are exchanged without a network."""
    return any(each.reason == OFFLINE.name for each in session.waits)

"""Data, and what a script would do with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comity.contract import Contract, Membership, Preprocessing, Terms
from comity.data.dataset import CLASSIFICATION
from comity.errors import ComityError, InvalidValue, MissingFile, PolicyRefusal
from comity.node.party import LocalParty
from comity.node.preflight.computing import require_device
from comity.node.preflight.context import Context
from comity.node.preflight.rows import NotChecked, Row
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.room import disk_space, promise
from comity.node.sessions.script import Script, parse_script
from comity.node.validation import read_text
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocols_for
from comity.tasks import kind_for

_NO_KEY = "0" * 64


def check_data(context: Context) -> Iterator[Row]:
    """The data can be read, and are enough for the node's own policy."""
    if context.config.data is None:
        yield Row("data", "skipped", "none configured: a role that does not train needs none")
        return
    if context.local.holdings.is_reinforcement:
        environment, games = (
            context.local.holdings.environments.environment,
            len(context.local.holdings.environments.parameters),
        )
        found = f"{environment.name}: {games:,} games, observations of {environment.features} numbers, "
        yield Row("data", "passed", f"{found}{environment.actions} actions")
        return
    splits, source = context.local.holdings.splits, context.config.data.source
    samples, fewest = len(splits.train), context.config.policy.min_samples
    absent = _absent(context)
    if samples < fewest and not absent:
        raise PolicyRefusal(
            f"{source} is fewer samples than this node's policy.min_samples",
            expected=f"at least {fewest}",
            received=samples,
            action="use more data, or lower policy.min_samples if what so few samples reveal may be known",
        )
    shape = "×".join(str(length) for length in splits.train.input_shape)
    tested = f"{len(splits.test):,} to test on" if splits.test is not None else "none to test on"
    said = f"{splits.train.classes} classes"
    if splits.train.task != CLASSIFICATION:
        kind = kind_for(splits)
        said = kind.described(kind.of(splits, Preprocessing()))
    others = "".join(f", {len(each):,} in {name}" for name, each in splits.others.items())
    names = splits.train.meaning.labels
    called = f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})" if names else ""
    notes = "".join(f"; {note}" for note in splits.notes)
    found = f"{source}: {samples:,} samples of {shape} to train on, {tested}{others}, {said}{called}{notes}"
    yield Row("data", "passed", found)
    if context.script is None:
        yield from absent


def _absent(context: Context) -> list[Row]:
    """What rounds this node would sit out whatever session it joins, by protocols that know."""
    asked = [each for role in context.roles for each in protocols_for(role) if each.initiator == role]
    return [row for each in asked for row in _absences(context.local, each, None, 0)]


def _absences(local: LocalParty, definition: ProtocolDefinition, terms: Terms | None, rounds: int) -> Iterator[Row]:
    """What rounds this party would sit out, or may have to."""
    settings = None if terms is None else local.config.settings_of(definition)
    fewest = local.config.policy.min_samples
    for each in definition.load().task.absences(terms, rounds, local.holdings.data, settings, fewest):
        yield Row("rounds", "warning", each.found, each.action)


def check_script(context: Context) -> Iterator[Row]:
    """A script is one that this node can run: its acceptors, its model, and the room that the session takes."""
    if context.script is None:
        yield Row("script", "skipped", "none was named; --script FILE checks a session's model and the room it takes")
        return
    session = drafted(context)
    yield Row("script", "passed", f"{context.script}: {session.contract.rounds} rounds of {session.definition.name}")
    require_device(context)
    asked = (session.local, session.contract, session.own, session.peer, session.definition)
    promise(*asked)
    models = ", ".join(each.name for each in session.contract.models.values()) or "none"
    found = f"{models}; room for the session's {disk_space(*asked) / 1e6:.1f} MB, if the peer has as many samples"
    yield Row("model", "passed", found)
    if session.own.role == session.definition.initiator:
        yield from _absences(session.local, session.definition, session.contract.terms, session.contract.rounds)


def drafted(context: Context) -> Drafted:
    """The session that the named script describes.

    Raises:
        ComityError: The script cannot be used here, or the node's own policy and peers do not admit it.
        NotChecked: The data cannot be read.
    """
    script = _read(context)
    script.require_no_parties()
    session = _draft(context, script)
    _require_part(context, session)
    return session


def _read(context: Context) -> Script:
    path = context.script
    if path is None:
        raise MissingFile("the script cannot be read", expected="a TOML file", received=path, action="check --script")
    return parse_script(read_text(path, action="check --script"), str(path))


@dataclass(frozen=True, slots=True)
class Drafted:
    """A session that a script describes, as far as one party knows it."""

    local: LocalParty
    contract: Contract
    definition: ProtocolDefinition
    own: Membership
    peer: Membership


def _draft(context: Context, script: Script) -> Drafted:
    local = context.local
    try:
        _ = local.holdings.data
    except ComityError as error:
        raise NotChecked("the data cannot be read") from error
    contract, definition = draft_contract(script, local, "preflight")
    if context.role not in definition.roles:
        raise InvalidValue(
            f"a {context.role} has no part in {definition.name}",
            expected=" or ".join(definition.roles),
            received=context.role,
            action="name another script, or another node",
        )
    own = local.membership(context.role, contract)
    other = next(role for role in definition.roles if role != context.role)
    peer = Membership(party=script.session.acceptors[0], role=other, samples=own.samples, receipt_key=_NO_KEY)
    return Drafted(local, contract, definition, own, peer)


def _require_part(context: Context, session: Drafted) -> None:
    """Checks that the node's own policy and peers admit the session."""
    config = context.config
    acceptors = session.contract.acceptors
    asks = session.definition.initiator == context.role
    unknown = [each for each in acceptors if each not in config.peers] if asks else []
    if unknown:
        raise InvalidValue(
            "session.acceptors names an unknown peer",
            expected=", ".join(config.peers) or "none",
            received=unknown[0],
            action=f"configure [peers.{unknown[0]}] with its address",
        )
    if not asks and config.party not in acceptors:
        raise InvalidValue(
            "session.acceptors does not name this node",
            expected=config.party,
            received=", ".join(acceptors),
            action="name another script, or another node",
        )
    # An acceptor learns who asks from the proposal.
    peers = acceptors if asks else config.policy.parties
    session.local.review(session.contract, session.own, peers, active=0)

"""A live node and peers that send it what they should not: each gets its line, and the node goes on.

The first half sends to a provider's daemon, while an honest session with it is on; the second half puts a provider that
cheats before a learner's daemon.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.protobuf.message import Message
from pydantic import SecretStr

from comity import errors
from comity.cli.progress import SessionProgress
from comity.cli.run import follow
from comity.contract import Contract
from comity.errors import ComityError
from comity.node.asking import draft_contract, run_session
from comity.node.control_client import ControlClient
from comity.node.helping import Helper
from comity.node.party import LocalParty
from comity.node.script import parse_script
from comity.protocols.assisted_learning import PROTOCOL, codec
from comity.protocols.assisted_learning import servicer as assisted_servicer
from comity.protocols.assisted_learning.messages import Checkpoint, trajectory_digest
from comity.session.codec import contract_from_proto, membership_from_proto, statement_to_proto
from comity.session.events import Event, Observer, nobody
from comity.session.hosting import HostedSession, HostedSessions
from comity.session.ledger import Head
from comity.session.memory_store import MemoryStore
from comity.session.outcome import Outcome
from comity.session.seat import Seat
from comity.simulation.in_process import simulate
from comity.simulation.processes import NodeProcess
from comity.tensors import Blob, Layout
from comity.transport import blobs, sessions
from comity.transport.certificates import Authority
from comity.transport.description import describing
from comity.transport.identity import Identity
from comity.transport.link import CONTRACT_KEY, SESSION_KEY, Link, Patience
from comity.transport.protocol import run
from comity.transport.server import NodeServer
from comity.transport.sessions import encode_proposal
from comity.transport.status import from_rpc_error
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import assisted_learning_pb2_grpc, blobs_pb2, sessions_pb2, sessions_pb2_grpc

SCRIPT = """\
[session]
protocol = "assisted_learning"
id = "{id}"
helpers = ["{helper}"]
rounds = {rounds}
seed = 3

[session.model]
name = "mlp"
options = {{ hidden = 16 }}

[session.terms]
learning_rate = 0.003
batch_size = 32
iterations = 40
sampling_period = 5
evaluation_batch_size = 32
"""
PARALLEL_ROUNDS = 25
MOST_ROUNDS = 50
QUICK = Patience(call_s=5.0, retry_s=0.2)
"""Of a client that gets its answer at once."""
PATIENT = Patience(call_s=20.0, retry_s=20.0)
DEADLINE_S = 30.0
NUMBERS = itertools.count()


def data(share: str) -> dict[str, Any]:
    partition = {"name": "imbalance", "gamma": 0.3, "share": share, "seed": 3}
    return {"source": "digits", "seed": 3, "per_class": 20, "partition": partition}


def party_section(role: str, **policy: Any) -> dict[str, Any]:
    return {"role": role, "secret": f"{role}'s", "data": data(role), "policy": policy}


def script_for(id: str, *, helper: str = "provider", rounds: int = 2, asker: str = "learner") -> Any:
    """A script, and the parties that play it in a simulation."""
    script = parse_script(SCRIPT.format(id=id, helper=helper, rounds=rounds))
    tables = {asker: party_section("learner"), helper: party_section("provider")}
    return type(script).model_validate(script.model_dump(exclude={"party"}) | {"party": tables})


def asking(script: Any, asker: str = "learner") -> LocalParty:
    section = script.party[asker]
    return LocalParty(asker, section, section.secret.get_secret_value().encode(), MemoryStore())


def run_honestly(
    node: Target, id: str, *, rounds: int = 2, observe: Observer = nobody, patience: Patience = PATIENT
) -> Outcome:
    """A whole session of the honest learner with a provider's daemon."""
    script = script_for(id, rounds=rounds)
    asker = asking(script)
    contract, definition = draft_contract(script, asker, id)
    with Link(node.learner, "provider", node.address, patience) as link:
        return run_session(contract, definition, asker, [link], observe)[1]


def refusal(call: Callable[[], object]) -> ComityError:
    """What a call is refused with, as the product's own client understands it."""
    try:
        call()
    except grpc.RpcError as failure:
        return from_rpc_error(failure)
    except ComityError as error:
        return error
    pytest.fail("the call was answered")


def assert_clear(error: ComityError, kind: type[ComityError], *parts: str) -> None:
    """One line that says what was expected, what came and what to do."""
    line = str(error)
    assert type(error) is kind, line
    assert "\n" not in line
    assert len(line) < 700
    assert error.what, line
    if kind not in {errors.RemoteFailure, errors.SessionFailed}:
        assert error.expected, line
        assert error.received, line
        assert error.action, line
    for part in parts:
        assert part in line, line


# --- A live provider ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A provider's daemon, and who calls it.

    Attributes:
        process: The daemon.
        address: Where it listens.
        learner: The honest learner.
        mallory: A party that the provider trusts.
        stranger: A party with a trusted certificate whom the provider's policy does not name.
    """

    process: NodeProcess
    address: str
    learner: Identity
    mallory: Identity
    stranger: Identity


class Parallel:
    """An honest session that is on while others attack; it waits after each round to be told to go on."""

    def __init__(self, node: Target) -> None:
        self.finished = 0
        self._rounds = threading.Condition()
        self._allowed = 0
        self._outcome: Outcome | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(node,), name="honest session", daemon=True)
        self._thread.start()

    def step(self) -> int:
        """Lets one more round begin, if it is not the last; returns the number of the round to wait for."""
        with self._rounds:
            self._allowed = min(self._allowed + 1, PARALLEL_ROUNDS - 1)
            self._rounds.notify_all()
            return self._allowed

    def wait(self, round: int) -> None:
        """Waits until a round is over."""
        with self._rounds:
            done = self._rounds.wait_for(lambda: self.finished >= round or self._outcome is not None, DEADLINE_S)
        assert done, f"the honest session hangs after round {self.finished}"
        assert self._outcome is None, self._outcome

    def finish(self) -> Outcome:
        """Lets it run to its end."""
        with self._rounds:
            self._allowed = PARALLEL_ROUNDS + 1
            self._rounds.notify_all()
        self._thread.join(DEADLINE_S)
        assert isinstance(self._outcome, Outcome), self._outcome
        return self._outcome

    def _run(self, node: Target) -> None:
        try:
            outcome: Outcome | BaseException = run_honestly(
                node, "parallel", rounds=PARALLEL_ROUNDS, observe=self._observe
            )
        except BaseException as error:  # noqa: BLE001 - shown by whoever waits
            outcome = error
        with self._rounds:
            self._outcome = outcome
            self._rounds.notify_all()

    def _observe(self, event: Event) -> None:
        if event.kind not in {"session-started", "round-finished"}:
            return
        with self._rounds:
            self.finished = event.round
            self._rounds.notify_all()
            self._rounds.wait_for(lambda: self._allowed > event.round)


@pytest.fixture(scope="module")
def target(site: Any) -> Target:
    policy = {"parties": ["learner", "mallory"], "max_rounds": MOST_ROUNDS}
    config = {"secret": "provider's", "data": data("provider"), "policy": policy, "listen": "127.0.0.1:0"}
    node = site.launch("provider", "provider", **config)
    return Target(node, node.wait_ready(), *(site.identity(name) for name in ("learner", "mallory", "stranger")))


@pytest.fixture(scope="module")
def parallel(target: Target) -> Iterator[Parallel]:
    """The honest session; at the end it, and one that begins after everything, come to what a simulation comes to."""
    session = Parallel(target)
    session.step()
    session.wait(1)
    yield session
    assert session.finish().digest == simulate(script_for("parallel", rounds=PARALLEL_ROUNDS))[1].digest
    assert run_honestly(target, "after").digest == simulate(script_for("after"))[1].digest


@pytest.fixture
def during(target: Target, parallel: Parallel) -> Iterator[None]:
    """A round of the honest session runs during the test, and the daemon is alive after it."""
    round = parallel.step()
    yield
    parallel.wait(round)
    assert target.process.process.poll() is None, target.process.last_words()
    with ControlClient(target.process.control_url) as control:
        assert control.describe().pid == target.process.process.pid


@dataclass
class Attack:
    """Mallory's session with the provider: her line, and the pieces of an honest learner to spoil.

    Attributes:
        link: The line; it quotes the session.
        contract: The session's contract.
        party: Mallory.
        seat: Her side of the session, as an honest role would have it.
    """

    link: Link
    contract: Contract
    party: LocalParty
    seat: Seat
    offers: dict[int, Checkpoint] = field(default_factory=dict)
    stub: assisted_learning_pb2_grpc.AssistedLearningStub = field(init=False)

    def __post_init__(self) -> None:
        self.stub = assisted_learning_pb2_grpc.AssistedLearningStub(self.link.channel)

    @property
    def layout(self) -> Layout:
        return self.seat.task.layout

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """A copy of the weights that the session begins with."""
        return {name: tensor.clone() for name, tensor in self.seat.task.initial_state.items()}

    @property
    def blob(self) -> Blob:
        """The blob that an honest learner offers first."""
        return self.layout.pack(self.state)

    def put(
        self,
        data: bytes | memoryview,
        *,
        pieces: Iterable[bytes | memoryview] | None = None,
        without: str | None = None,
        **announced: object,
    ) -> blobs_pb2.BlobStat:
        """Uploads bytes; what is announced beside them may be anything."""
        blob = Blob.of(bytes(data))
        beside = {"kind": "checkpoint", "round": 1, "digest": blob.hex, "size": blob.size, "offset": 0} | announced
        metadata = [*self.link._metadata, *((f"comity-{k}", str(v)) for k, v in beside.items() if k != without)]
        views = blobs.chunks(blob, 0) if pieces is None else (memoryview(piece) for piece in pieces)
        stat: blobs_pb2.BlobStat = self.link._put(views, metadata=metadata, timeout=QUICK.call_s)
        return stat

    def checkpoint(
        self, blob: Blob | None = None, *, index: int = 0, iteration: int = 0, sum: float = 85.0, count: int = 37
    ) -> pb.Checkpoint:
        reference = blobs_pb2.BlobRef(digest=(blob or self.blob).digest)
        return pb.Checkpoint(index=index, iteration=iteration, blob=reference, loss=pb.Loss(sum=sum, count=count))

    def offer(self, checkpoint: pb.Checkpoint | None, round: int = 1) -> pb.OfferReply:
        reply = self.call("Offer", pb.OfferRequest(round=round, checkpoint=checkpoint))
        if checkpoint is not None:
            self.offers[checkpoint.index] = codec.checkpoint_from_proto(checkpoint)
        return reply

    def close(self, count: int = 1, round: int = 1) -> sessions_pb2.SignedStatement:
        """Closes a round with a request that is signed as an honest learner's."""
        subject = trajectory_digest(round, list(self.offers.values())).hex()
        contract = self.contract
        signed = self.party.signer.state("request", contract.session, contract.hash, round, subject, Head())
        request = pb.CloseRoundRequest(round=round, count=count, request=statement_to_proto(signed))
        answer: sessions_pb2.SignedStatement = self.call("CloseRound", request)
        return answer

    def call(self, method: str, request: Message) -> Any:
        return getattr(self.stub, method)(request, metadata=self.link._metadata, timeout=QUICK.call_s)

    def watch(self, round: int = 1, skip: int = 0) -> list[pb.Result]:
        return list(self.call("WatchResults", pb.WatchResultsRequest(round=round, skip=skip)))

    def begin(self) -> Blob:
        """Offers the first checkpoint as an honest learner does."""
        blob = self.blob
        assert self.put(blob.data).complete
        self.offer(self.checkpoint(blob))
        return blob

    def play_on(self) -> str:
        """Plays the whole session honestly, whatever was tried before; returns its digest."""
        return run(PROTOCOL.ask([(self.seat, self.link)]))[0].digest


def mallorys(id: str, **changes: Any) -> tuple[Contract, LocalParty]:
    """A contract that the provider would take, and Mallory."""
    script = script_for(id, asker="mallory")
    party = asking(script, "mallory")
    return draft_contract(script, party, id)[0].model_copy(update=changes), party


@pytest.fixture
def line(target: Target) -> Iterator[Link]:
    """Mallory's line to the provider."""
    with Link(target.mallory, "provider", target.address, QUICK) as link:
        yield link


@contextmanager
def agreed(line: Link, id: str, **changes: Any) -> Iterator[Attack]:
    """A session of Mallory's, that is agreed on in good order and ended."""
    contract, party = mallorys(id, **changes)
    own = party.membership("learner")
    agreement = sessions.propose(line, encode_proposal(contract, own, party.signer, PROTOCOL))
    peer = sessions.decode_agreement(agreement, contract, "provider", PROTOCOL)
    line.enter(contract.session, contract.hash)
    try:
        yield Attack(line, contract, party, party.seat(party.place(contract, own, nobody), peer))
    finally:
        sessions.end(line, "finished")


@pytest.fixture
def attack(line: Link, during: None) -> Iterator[Attack]:
    """A session of Mallory's to try things in."""
    del during
    with agreed(line, f"m-{next(NUMBERS)}") as session:
        yield session


# Proposals.


def proposal(**changes: Any) -> sessions_pb2.Proposal:
    """Mallory's proposal, with fields of the contract replaced before they are encoded."""
    contract, party = mallorys("proposed", **changes)
    return encode_proposal(contract, party.membership("learner"), party.signer, PROTOCOL)


def signed(message: sessions_pb2.Proposal) -> sessions_pb2.Proposal:
    """A proposal that was changed, signed again by Mallory where it can be read at all."""
    try:
        contract = contract_from_proto(message.contract, PROTOCOL.terms_message(), PROTOCOL.terms)
        membership = membership_from_proto(message.membership)
    except ComityError:
        return message
    message.signature = mallorys("proposed")[1].signer.sign_membership(contract.hash, membership)
    return message


def edited(edit: Callable[[sessions_pb2.Proposal], object]) -> sessions_pb2.Proposal:
    """Mallory's proposal, changed in its encoded form, where no class of ours can object."""
    message = proposal()
    edit(message)
    return message


def with_terms(**terms: Any) -> sessions_pb2.Proposal:
    message = proposal()
    packed = pb.AssistedLearningTerms()
    assert message.contract.terms.Unpack(packed)
    for name, value in terms.items():
        setattr(packed, name, value)
    message.contract.terms.Pack(packed)
    return message


def with_option(name: str, value: Any) -> sessions_pb2.Proposal:
    return edited(lambda message: message.contract.model.options.update({name: value}))


def setting(path: str, value: Any) -> sessions_pb2.Proposal:
    """The proposal with one field set, by its path."""
    message = proposal()
    *parents, last = path.split(".")
    target: Any = message
    for name in parents:
        target = getattr(target, name)
    if isinstance(value, list):
        del getattr(target, last)[:]
        getattr(target, last).extend(value)
    else:
        setattr(target, last, value)
    return message


PROPOSALS: Mapping[str, tuple[Callable[[], sessions_pb2.Proposal], type[ComityError], tuple[str, ...]]] = {
    "a model that nobody has": (
        lambda: setting("contract.model.name", "mlpp"),
        errors.UnknownModel,
        ("lenet5", "'mlpp'", "did you mean 'mlp'"),
    ),
    "another signature": (
        lambda: setting("contract.model.signature", "f" * 64),
        errors.ModelSignatureMismatch,
        ("f" * 64, "same version"),
    ),
    "options of another model": (
        lambda: with_option("hidden", 17),
        errors.ModelSignatureMismatch,
        ("provider builds other tensors for mlp",),
    ),
    "an unknown option": (lambda: with_option("hiden", 17), errors.InvalidValue, ("hidden", "hiden")),
    "an option of another type": (lambda: with_option("hidden", "wide"), errors.InvalidValue, ("int", "'wide'")),
    "an option out of range": (lambda: with_option("hidden", 1e15), errors.InvalidValue, ("8192", "1000000000000000")),
    "an option that is no number": (
        lambda: with_option("hidden", math.nan),
        errors.MalformedMessage,
        ("model.options", "NaN"),
    ),
    "an option that is null": (lambda: with_option("hidden", None), errors.MalformedMessage, ("hidden",)),
    "options in options": (lambda: with_option("hidden", {"a": 1}), errors.MalformedMessage, ("hidden",)),
    "inputs of another shape": (
        lambda: setting("contract.task.input_shape", [1, 28, 28]),
        errors.TaskMismatch,
        ("1×28×28", "1×8×8", "use data"),
    ),
    "other classes": (lambda: setting("contract.task.classes", 11), errors.TaskMismatch, ("11 classes", "10 classes")),
    "no classes": (lambda: setting("contract.task.classes", 0), errors.MalformedMessage, ("classes", "2", "0")),
    "an absurd shape": (
        lambda: setting("contract.task.input_shape", [2**32 - 1] * 4),
        errors.TaskMismatch,
        ("4294967295",),
    ),
    "another kind of task": (lambda: setting("contract.task.kind", "detection"), errors.MalformedMessage, ("kind",)),
    "NaN to normalise with": (
        lambda: edited(
            lambda m: (m.contract.task.mean.append(math.nan), m.contract.task.std.append(1.0)),
        ),
        errors.MalformedMessage,
        ("mean",),
    ),
    "a protocol that nobody has": (
        lambda: setting("contract.protocol", "assisted_lerning"),
        errors.UnsupportedProtocol,
        ("assisted_learning", "assisted_lerning", "did you mean"),
    ),
    "another version": (
        lambda: setting("contract.version", 2),
        errors.UnsupportedProtocol,
        ("version 1", "version 2"),
    ),
    "a contract in another's name": (
        lambda: setting("contract.asker", "learner"),
        errors.UnknownParty,
        ("mallory", "learner"),
    ),
    "a part in another's name": (
        lambda: setting("membership.party", "learner"),
        errors.UnknownParty,
        ("mallory", "learner"),
    ),
    "a part in another role": (
        lambda: setting("membership.role", "provider"),
        errors.UnknownParty,
        ("as learner", "provider mallory"),
    ),
    "help of another": (
        lambda: setting("contract.helpers", ["somebody"]),
        errors.UnknownParty,
        ("provider", "somebody"),
    ),
    "too many rounds": (
        lambda: setting("contract.rounds", MOST_ROUNDS + 1),
        errors.PolicyRefusal,
        ("max_rounds", "at most 50", "51", "buy fewer"),
    ),
    "no rounds": (lambda: setting("contract.rounds", 0), errors.MalformedMessage, ("rounds", "0")),
    "absurd rounds": (lambda: setting("contract.rounds", 2**32 - 1), errors.MalformedMessage, ("rounds", "4294967295")),
    "samples as egress": (
        lambda: setting("contract.egress", ["contract", "loss", "checkpoint", "sample"]),
        errors.PolicyRefusal,
        ("sample",),
    ),
    "more egress than needed": (
        lambda: setting("contract.egress", ["contract", "loss", "checkpoint", "features"]),
        errors.PolicyRefusal,
        ("features",),
    ),
    "unknown egress": (
        lambda: setting("contract.egress", ["contract", "everything"]),
        errors.MalformedMessage,
        ("egress", "everything"),
    ),
    "no samples": (lambda: setting("membership.samples", 0), errors.MalformedMessage, ("samples", "0")),
    "a session named like a path": (
        lambda: setting("contract.session", "../../../etc/passwd"),
        errors.MalformedMessage,
        ("session", "../../../etc/passwd"),
    ),
    "a session without a name": (lambda: setting("contract.session", ""), errors.MalformedMessage, ("session",)),
    "the session of another": (
        lambda: setting("contract.session", "parallel"),
        errors.ContractMismatch,
        ("parallel", "another id"),
    ),
    "an absurd seed": (lambda: setting("contract.seed", 2**64 - 1), errors.MalformedMessage, ("seed",)),
    "a learning rate of NaN": (
        lambda: with_terms(learning_rate=math.nan),
        errors.MalformedMessage,
        ("learning_rate", "NaN"),
    ),
    "a negative learning rate": (
        lambda: with_terms(learning_rate=-1.0),
        errors.MalformedMessage,
        ("learning_rate", "-1"),
    ),
    "a step size that no tensor can take": (
        lambda: with_terms(learning_rate=1e300),
        errors.MalformedMessage,
        ("learning_rate", "1e+300"),
    ),
    "no iterations": (lambda: with_terms(iterations=0), errors.MalformedMessage, ("iterations", "0")),
    "no sampling period": (lambda: with_terms(sampling_period=0), errors.MalformedMessage, ("sampling_period", "0")),
    "no batch": (lambda: with_terms(batch_size=0), errors.MalformedMessage, ("batch_size", "0")),
    "an unknown optimiser": (lambda: with_terms(optimizer="lion"), errors.MalformedMessage, ("optimizer", "lion")),
    "an unknown objective": (lambda: with_terms(objective="max"), errors.MalformedMessage, ("objective", "max")),
    "the terms of another protocol": (
        lambda: edited(lambda m: m.contract.terms.Pack(pb.Loss(sum=1.0))),
        errors.MalformedMessage,
        ("comity.wire.v1.AssistedLearningTerms", "comity.wire.v1.Loss"),
    ),
    "terms that are garbage": (
        lambda: edited(lambda m: setattr(m.contract.terms, "value", b"\xff" * 40)),
        errors.MalformedMessage,
        ("terms",),
    ),
    "no terms": (lambda: edited(lambda m: m.contract.ClearField("terms")), errors.MalformedMessage, ("terms",)),
    "no contract": (lambda: edited(lambda m: m.ClearField("contract")), errors.MalformedMessage, ("contract",)),
    "no membership": (lambda: edited(lambda m: m.ClearField("membership")), errors.MalformedMessage, ("membership",)),
    "nothing": (sessions_pb2.Proposal, errors.MalformedMessage, ("contract",)),
}


@pytest.mark.parametrize("case", PROPOSALS)
@pytest.mark.usefixtures("during")
def test_a_proposal_that_cannot_be_taken(case: str, line: Link) -> None:
    make, kind, parts = PROPOSALS[case]
    assert_clear(refusal(lambda: sessions.propose(line, signed(make()))), kind, *parts)


@pytest.mark.usefixtures("during")
def test_a_party_outside_the_policy(target: Target) -> None:
    contract, party = mallorys("uninvited", asker="stranger")
    own = party.membership("learner").model_copy(update={"party": "stranger"})
    with Link(target.stranger, "provider", target.address, QUICK) as link:
        error = refusal(lambda: sessions.propose(link, encode_proposal(contract, own, party.signer, PROTOCOL)))
    assert_clear(error, errors.PolicyRefusal, "policy.parties", "learner, mallory", "stranger", "add the party")


# Who calls.


def reach(identity: Identity, address: str, party: str = "provider") -> ComityError:
    contract, asker = mallorys("unreached")
    message = encode_proposal(contract, asker.membership("learner"), asker.signer, PROTOCOL)
    with Link(identity, party, address, Patience(call_s=5.0, retry_s=5.0)) as link:
        return refusal(lambda: sessions.propose(link, message))


@pytest.mark.usefixtures("during")
def test_a_foreign_certificate(target: Target, tmp_path: Path) -> None:
    foreign = Authority.create().issue("mallory", tmp_path)
    # The client looks first, and does not accept the provider either.
    error = reach(foreign, target.address)
    assert_clear(error, errors.CertificateRejected, "certificate of provider", "tls.trust")
    # One that trusts the provider is turned away by it.
    half = Identity("mallory", foreign.certificate, foreign.key, target.mallory.trust)
    error = reach(half, target.address)
    assert_clear(error, errors.CertificateRejected, "provider does not accept our certificate", "tls.certificate")


@pytest.mark.usefixtures("during")
def test_an_expired_certificate(target: Target, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.transport.certificates._LIFETIME", datetime.timedelta(minutes=-1))
    expired = site.authority.issue("mallory", tmp_path)
    error = reach(expired, target.address)
    assert_clear(error, errors.CertificateRejected, "provider does not accept our certificate")


@pytest.mark.usefixtures("during")
def test_a_plaintext_peer(target: Target) -> None:
    error = reach(Identity("mallory"), target.address)
    assert_clear(error, errors.CertificateRejected, "provider takes TLS only", "plaintext", "[tls]")


@pytest.mark.usefixtures("during")
def test_a_node_of_another_name(target: Target) -> None:
    error = reach(target.mallory, target.address, party="somebody")
    assert_clear(error, errors.CertificateRejected, "certificate of somebody", "check the address")


@pytest.mark.usefixtures("during")
def test_no_client_certificate(target: Target) -> None:
    assert target.mallory.trust is not None
    credentials = grpc.ssl_channel_credentials(target.mallory.trust.read_bytes())
    options = [("grpc.ssl_target_name_override", "provider")]
    with grpc.secure_channel(target.address, credentials, options) as channel:
        propose = sessions_pb2_grpc.SessionsStub(channel).Propose
        with pytest.raises(grpc.RpcError) as caught:
            propose(proposal(), timeout=QUICK.call_s)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\xff" * 512, b"\0" * 4096])
@pytest.mark.usefixtures("during")
def test_noise_on_the_port(target: Target, noise: bytes) -> None:
    host, port = target.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=QUICK.call_s) as connection:
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass


# Calls outside a session.

METHODS: Mapping[str, tuple[str, Message]] = {
    "/comity.wire.v1.Blobs/Stat": ("unary_unary", blobs_pb2.BlobRef(digest=bytes(32))),
    "/comity.wire.v1.Blobs/Put": ("stream_unary", blobs_pb2.BlobChunk(data=b"a")),
    "/comity.wire.v1.Blobs/Get": ("unary_stream", blobs_pb2.BlobRequest(blob=blobs_pb2.BlobRef(digest=bytes(32)))),
    "/comity.wire.v1.AssistedLearning/Offer": ("unary_unary", pb.OfferRequest(round=1)),
    "/comity.wire.v1.AssistedLearning/CloseRound": ("unary_unary", pb.CloseRoundRequest(round=1, count=1)),
    "/comity.wire.v1.AssistedLearning/WatchResults": ("unary_stream", pb.WatchResultsRequest(round=1)),
}


def send(link: Link, path: str, kind: str, payload: bytes, metadata: Iterable[tuple[str, str | bytes]] = ()) -> object:
    """Sends bytes to a method, as they are."""
    method = getattr(link.channel, kind)(path, None, None)
    request = iter([payload]) if kind.startswith("stream") else payload
    answer = method(request, metadata=tuple(metadata), timeout=QUICK.call_s)
    return list(answer) if kind.endswith("stream") else answer


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.usefixtures("during")
def test_a_session_that_is_not_the_callers(path: str, line: Link) -> None:
    kind, message = METHODS[path]
    parallel = simulate_contract("parallel", PARALLEL_ROUNDS)
    for quoted, received in (
        ((), "received none"),
        ([(SESSION_KEY, "nobody's"), (CONTRACT_KEY, "0" * 64)], "nobody's"),
        # The honest learner's own, to the letter.
        ([(SESSION_KEY, "parallel"), (CONTRACT_KEY, parallel.hash)], "parallel"),
    ):
        error = refusal(lambda quoted=quoted: send(line, path, kind, message.SerializeToString(), quoted))  # type: ignore[misc]
        assert_clear(error, errors.UnknownSession, "a session of mallory", received, "propose it first")


def simulate_contract(id: str, rounds: int) -> Contract:
    script = script_for(id, rounds=rounds)
    return draft_contract(script, asking(script), id)[0]


@pytest.mark.usefixtures("during")
def test_ending_tells_nobody_whether_a_session_exists(line: Link) -> None:
    """To a stranger another's session and one that never was are the same."""

    def end(session: str) -> object:
        metadata = ((SESSION_KEY, session), (CONTRACT_KEY, "0" * 64))
        try:
            return send(line, "/comity.wire.v1.Sessions/End", "unary_unary", b"", metadata)
        except grpc.RpcError as failure:
            return type(from_rpc_error(failure))

    assert end("parallel") == end("never-was")


@pytest.mark.parametrize("path", METHODS)
def test_another_contract(path: str, attack: Attack) -> None:
    kind, message = METHODS[path]
    quoted = [(SESSION_KEY, attack.contract.session), (CONTRACT_KEY, "ab" * 32)]
    error = refusal(lambda: send(attack.link, path, kind, message.SerializeToString(), quoted))
    assert_clear(error, errors.ContractMismatch, attack.contract.hash, "ab" * 32)


GARBAGE = (b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(1, 200)))


@pytest.mark.parametrize(
    "path", [*(f"/{sessions.SERVICE}/{name}" for name in ("Propose", "End", "Describe")), *METHODS]
)
def test_garbage_instead_of_a_message(path: str, attack: Attack) -> None:
    kind = METHODS[path][0] if path in METHODS else "unary_unary"
    blob = attack.blob
    beside = blobs.put_metadata(blob, "checkpoint", 1, 0)
    for payload in GARBAGE:
        with pytest.raises(grpc.RpcError) as caught:
            send(attack.link, path, kind, payload, [*attack.link._metadata, *beside])
        assert caught.value.code() not in {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert "\n" not in str(from_rpc_error(caught.value))
    attack.begin()


@pytest.mark.usefixtures("during")
def test_methods_that_peers_do_not_have(line: Link) -> None:
    for path in ("/comity.wire.v1.Control/Describe", "/comity.wire.v1.Control/Run", "/comity.wire.v1.Blobs/Delete"):
        with pytest.raises(grpc.RpcError) as caught:
            send(line, path, "unary_unary", b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_more_metadata_than_anybody_needs(attack: Attack) -> None:
    metadata = [*attack.link._metadata, ("comity-note", "x" * 200_000)]
    with pytest.raises(grpc.RpcError) as caught:
        send(attack.link, "/comity.wire.v1.Blobs/Stat", "unary_unary", b"", metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Blobs.


def test_a_corrupted_blob(attack: Attack) -> None:
    blob = attack.blob
    spoiled = bytearray(blob.data)
    spoiled[-1] ^= 1
    error = refusal(lambda: attack.put(spoiled, digest=blob.hex))
    assert_clear(error, errors.BlobCorrupted, blob.hex, Blob.of(spoiled).hex, "send it again")
    # Nothing of it is kept: the right one is taken.
    assert attack.begin() == blob


def test_a_truncated_blob(attack: Attack) -> None:
    blob = attack.blob
    half = blob.size // 2
    error = refusal(lambda: attack.put(blob.data, pieces=[blob.data[:half]]))
    assert_clear(error, errors.BlobTruncated, f"{blob.size} bytes", f"{half} bytes", "send the rest")
    error = refusal(lambda: attack.offer(attack.checkpoint(blob)))
    assert_clear(error, errors.UnknownBlob, blob.hex, "send it first")
    # What came is kept, and can be gone on from.
    stat = attack.link._stat(blobs_pb2.BlobRef(digest=blob.digest), metadata=attack.link._metadata)
    assert (stat.held, stat.complete) == (half, False)
    error = refusal(lambda: attack.put(blob.data))
    assert_clear(error, errors.BlobTruncated, f"offset {half}", "offset 0", "go on from there")
    assert attack.put(blob.data, pieces=[blob.data[half:]], offset=half).complete
    attack.offer(attack.checkpoint(blob))


def test_an_oversized_blob(attack: Attack) -> None:
    blob = attack.blob
    for size in (blob.size + 1, blob.size - 1, 0, 10**18 - 1):
        error = refusal(lambda size=size: attack.put(blob.data, size=size))  # type: ignore[misc]
        assert_clear(error, errors.BlobSizeMismatch, f"{blob.size} bytes", f"{size} bytes", "state dict")
    for tail in (b"x", bytes(2**20)):
        error = refusal(lambda tail=tail: attack.put(blob.data, pieces=[blob.data, tail]))  # type: ignore[misc]
        assert_clear(error, errors.BlobSizeMismatch, f"{blob.size} bytes", f"{blob.size + len(tail)} or more")
    assert attack.begin() == blob


def test_a_blob_that_nobody_waits_for(attack: Attack) -> None:
    blob = attack.blob
    for announced in ({"kind": "update"}, {"kind": "sample"}, {"round": 0}, {"round": 2}, {"round": 10**17}):
        error = refusal(lambda announced=announced: attack.put(blob.data, **announced))  # type: ignore[misc]
        came = f"{announced.get('kind', 'checkpoint')} of round {announced.get('round', 1)}"
        assert_clear(error, errors.UnexpectedBlob, "checkpoint of round 1", came, "wait for the round")


@pytest.mark.parametrize("field", ["kind", "round", "digest", "size", "offset"])
def test_numbers_that_are_none(attack: Attack, field: str) -> None:
    blob = attack.blob
    for value in ("", "-1", "1e3", "0x10", "9" * 19, "9" * 4000, "nan", " 1", "1 ", "1_0", "~"):
        error = refusal(lambda value=value: attack.put(blob.data, **{field: value}))  # type: ignore[misc]
        assert_clear(error, errors.MalformedMessage)
    assert_clear(refusal(lambda: attack.put(blob.data, without=field)), errors.MalformedMessage)
    assert attack.begin() == blob


def test_an_offset_that_is_not_where_the_bytes_end(attack: Attack) -> None:
    blob = attack.blob
    error = refusal(lambda: attack.put(blob.data, offset=10**17))
    assert_clear(error, errors.BlobTruncated, "offset 0", f"offset {10**17}")
    assert attack.begin() == blob


def test_too_many_blobs(attack: Attack) -> None:
    states = [attack.state for _ in range(4)]
    for index, state in enumerate(states):
        state["3.bias"] += index
    *fitting, surplus = (attack.layout.pack(state) for state in states)
    for blob in fitting:
        assert attack.put(blob.data).complete
    error = refusal(lambda: attack.put(surplus.data))
    assert_clear(error, errors.UnexpectedBlob, "at most 3", "one more", "no more than")


def spoiled_headers(layout: Layout, blob: Blob) -> dict[str, bytes]:
    """Blobs of the right length whose headers are another model's, or nobody's."""
    header, body = layout.header, bytes(blob.data[len(layout.header) :])
    text = header[8:]

    def with_text(replacement: bytes) -> bytes:
        return header[:8] + replacement[: len(text)].ljust(len(text)) + body

    return {
        "another dtype": with_text(text.replace(b'"F32","shape":[16]', b'"I32","shape":[16]')),
        "another shape": with_text(text.replace(b"[10,16]", b"[16,10]")),
        "another name": with_text(text.replace(b"3.weight", b"4.weight")),
        "places swapped": with_text(text.replace(b"[0,64]", b"[1,65]")),
        "no header": bytes(blob.size),
        "noise": bytes((i * 97 + 13) % 251 for i in range(blob.size)),
        "an absurd header length": struct.pack("<Q", 2**63) + bytes(blob.data[8:]),
        "brackets": with_text(b"[" * len(text)),
        "a list": with_text(b"[1,2,3]"),
        "null": with_text(b"null"),
        "a null tensor": with_text(b'{"1.bias":null}'),
        "numbers for names": with_text(json.dumps({"1.bias": {"dtype": 1e308, "shape": {"a": [2**70]}}}).encode()),
        "no text": with_text(b"\xff\xfe\x00"),
    }


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("another dtype", ("tensor 1.bias differs", "F32 [16]", "I32 [16]", "state dict")),
        ("another shape", ("tensor 3.weight differs", "F32 [10, 16]", "F32 [16, 10]", "state dict")),
        ("another name", ("tensor 3.weight is missing", "F32 [10, 16]", "nothing", "state dict")),
        ("places swapped", ("order", "state dict")),
        ("no header", ("state dict",)),
        ("noise", ("header", "state dict")),
        ("an absurd header length", ("header is too long", f"{2**63} bytes", "state dict")),
        ("brackets", ("header cannot be read", "state dict")),
        ("a list", ("header cannot be read", "state dict")),
        ("null", ("header cannot be read", "state dict")),
        ("a null tensor", ("header cannot be read", "state dict")),
        ("numbers for names", ("state dict",)),
        ("no text", ("header cannot be read", "state dict")),
    ],
)
def test_tensors_of_another_model(attack: Attack, case: str, parts: tuple[str, ...]) -> None:
    blob = attack.blob
    spoiled = spoiled_headers(attack.layout, blob)[case]
    assert len(spoiled) == blob.size
    assert spoiled != bytes(blob.data)
    assert_clear(refusal(lambda: attack.put(spoiled)), errors.TensorMismatch, *parts)
    error = refusal(lambda: attack.offer(attack.checkpoint(Blob.of(spoiled))))
    assert_clear(error, errors.UnknownBlob, "send it first")


@pytest.mark.parametrize(
    ("value", "name"), [(math.nan, "NaN"), (math.inf, "an infinite value"), (-math.inf, "an infinite value")]
)
def test_weights_that_are_not_finite(attack: Attack, value: float, name: str) -> None:
    state = attack.state
    state["3.weight"][-1, -1] = value
    error = refusal(lambda: attack.put(attack.layout.pack(state).data))
    assert_clear(error, errors.NonFiniteValue, "tensor 3.weight", "finite values", name, "learning rate")


@pytest.mark.usefixtures("during")
def test_an_upload_that_outlives_its_round(line: Link) -> None:
    """The check of a blob cannot be waited out: what is not expected any more when it ends is not taken."""
    with agreed(line, "m-outlives", rounds=1) as attack:
        attack.begin()
        state = attack.state
        state["3.weight"][0, 0] = math.nan
        bad = attack.layout.pack(state)
        held, closed = threading.Event(), threading.Event()

        def pieces() -> Iterator[memoryview]:
            yield bad.data[:100]
            held.set()
            closed.wait(DEADLINE_S)
            yield bad.data[100:]

        found: list[ComityError] = []
        upload = threading.Thread(target=lambda: found.append(refusal(lambda: attack.put(bad.data, pieces=pieces()))))
        upload.start()
        try:
            assert held.wait(DEADLINE_S)
            attack.close()
            assert attack.watch()[-1].HasField("end")
        finally:
            closed.set()
            upload.join(DEADLINE_S)
        assert len(found) == 1, "the upload was taken"
        assert_clear(found[0], errors.UnexpectedBlob, bad.hex, "wait for the round")
        stat = attack.link._stat(blobs_pb2.BlobRef(digest=bad.digest), metadata=attack.link._metadata)
        assert (stat.held, stat.complete) == (0, False)


def test_blobs_that_are_not_there_to_be_had(attack: Attack) -> None:
    own = attack.begin()

    def get(digest: bytes) -> object:
        request = blobs_pb2.BlobRequest(blob=blobs_pb2.BlobRef(digest=digest))
        return list(attack.link._get(request, metadata=attack.link._metadata, timeout=QUICK.call_s))

    # What came is not what may leave.
    assert_clear(refusal(lambda: get(own.digest)), errors.UnknownBlob, own.hex)
    assert_clear(refusal(lambda: get(bytes(32))), errors.UnknownBlob, "00" * 32)
    assert_clear(refusal(lambda: get(b"short")), errors.MalformedMessage, "32 bytes", "5 bytes")


# Offers.


def test_an_offer_without_its_blob(attack: Attack) -> None:
    error = refusal(lambda: attack.offer(attack.checkpoint()))
    assert_clear(error, errors.UnknownBlob, attack.blob.hex, "send it first")


def test_an_offer_that_is_incomplete(attack: Attack) -> None:
    assert attack.put(attack.blob.data).complete
    error = refusal(lambda: attack.call("Offer", pb.OfferRequest(round=1)))
    assert_clear(error, errors.MalformedMessage, "checkpoint", "nothing")
    for name in ("blob", "loss"):
        checkpoint = attack.checkpoint()
        checkpoint.ClearField(name)
        error = refusal(lambda checkpoint=checkpoint: attack.offer(checkpoint))  # type: ignore[misc]
        assert_clear(error, errors.MalformedMessage, f"expected {name}", "nothing")
    checkpoint = attack.checkpoint()
    checkpoint.blob.digest = b"short"
    assert_clear(refusal(lambda: attack.offer(checkpoint)), errors.MalformedMessage, "32 bytes", "5 bytes")
    assert attack.begin()


@pytest.mark.parametrize(
    ("sum", "count", "kind", "parts"),
    [
        (math.nan, 37, errors.NonFiniteValue, ("a finite sum", "nan", "learning_rate")),
        (math.inf, 37, errors.NonFiniteValue, ("a finite sum", "inf", "learning_rate")),
        (-math.inf, 37, errors.NonFiniteValue, ("a finite sum", "-inf", "learning_rate")),
        (-0.5, 37, errors.MalformedMessage, ("a sum from 0", "-0.5")),
        (1.0, 0, errors.MalformedMessage, ("1 sample or more", "over 0")),
        (1.0, 38, errors.MalformedMessage, ("another number of samples", "37", "38")),
        (1.0, 2**64 - 1, errors.MalformedMessage, ("another number of samples", "37", str(2**64 - 1))),
    ],
)
def test_a_loss_that_cannot_be(
    attack: Attack, sum: float, count: int, kind: type[ComityError], parts: tuple[str, ...]
) -> None:
    blob = attack.blob
    assert attack.put(blob.data).complete
    assert_clear(refusal(lambda: attack.offer(attack.checkpoint(blob, sum=sum, count=count))), kind, *parts)
    assert attack.begin() == blob


def test_losses_too_great_to_be_added(attack: Attack) -> None:
    """Finite one by one, and infinite together: the session that asks for it fails, with a reason."""
    blob = attack.blob
    assert attack.put(blob.data).complete
    attack.offer(attack.checkpoint(blob, sum=1.7976931348623157e308))
    attack.close()
    results = attack.watch()
    assert results[-1].HasField("end")


@pytest.mark.parametrize("round", [0, 2, 3, 2**32 - 1])
def test_a_round_out_of_order(attack: Attack, round: int) -> None:
    blob = attack.blob
    assert attack.put(blob.data).complete
    for call in (
        lambda: attack.offer(attack.checkpoint(blob), round=round),
        lambda: attack.close(round=round),
    ):
        assert_clear(refusal(call), errors.RoundOutOfOrder, "round 1", f"round {round}")
    assert_clear(refusal(lambda: attack.watch(round)), errors.RoundOutOfOrder, "none", f"round {round}")
    assert attack.begin() == blob


def test_an_index_out_of_order(attack: Attack) -> None:
    blob = attack.blob
    assert attack.put(blob.data).complete
    for index in (1, 2, 3, 2**32 - 1):
        error = refusal(lambda index=index: attack.offer(attack.checkpoint(blob, index=index)))  # type: ignore[misc]
        assert_clear(error, errors.RoundOutOfOrder, "index 0", f"index {index}")
    error = refusal(lambda: attack.offer(attack.checkpoint(blob, iteration=5)))
    assert_clear(error, errors.MalformedMessage, "another iteration", "expected 0", "received 5")
    # One more than the contract's trajectory has.
    attack.offer(attack.checkpoint(blob))
    for index in (1, 2):
        attack.offer(attack.checkpoint(blob, index=index, iteration=5 * index))
    error = refusal(lambda: attack.offer(attack.checkpoint(blob, index=3, iteration=15)))
    assert_clear(error, errors.RoundOutOfOrder, "of 3", "index 3")


def test_an_offer_that_changes_afterwards(attack: Attack) -> None:
    blob = attack.begin()
    attack.offer(attack.checkpoint(blob))  # the same again is no change
    state = attack.state
    state["3.bias"] += 1
    other = attack.layout.pack(state)
    assert attack.put(other.data).complete
    for changed, part in (
        (attack.checkpoint(other), other.hex),
        (attack.checkpoint(blob, sum=84.0), "84.0"),
        (attack.checkpoint(blob, count=38), "38"),
        (attack.checkpoint(blob, iteration=5), "iteration 5"),
    ):
        error = refusal(lambda changed=changed: attack.offer(changed))  # type: ignore[misc]
        assert_clear(error, errors.ConflictingOffer, part, "cannot change")
        assert error.expected != error.received


def test_a_round_that_is_closed(attack: Attack) -> None:
    for count in (0, 1, 2**32 - 1):
        error = refusal(lambda count=count: attack.close(count))  # type: ignore[misc]
        assert_clear(error, errors.RoundOutOfOrder, "checkpoints", f"received {count}", "close with their number")
    assert_clear(refusal(attack.watch), errors.RoundOutOfOrder, "none", "round 1")
    blob = attack.begin()
    receipt = attack.close()
    assert attack.close() == receipt
    error = refusal(lambda: attack.offer(attack.checkpoint(blob, index=1, iteration=5)))
    assert_clear(error, errors.RoundOutOfOrder, "closed", "checkpoint 1")
    error = refusal(lambda: attack.put(attack.blob.data))
    assert_clear(error, errors.UnexpectedBlob, "checkpoint of round 1")
    assert attack.watch(skip=2**32 - 1) == [pb.Result(end=pb.End(count=6))]


def test_a_session_is_as_it_was_after_all_of_it(attack: Attack) -> None:
    """Bad messages cost their calls only: the same session then comes to what it would have come to."""
    blob = attack.blob
    spoiled = bytearray(blob.data)
    spoiled[-1] ^= 1
    refusal(lambda: attack.put(spoiled, digest=blob.hex))
    refusal(lambda: attack.put(blob.data, pieces=[blob.data[:100]]))
    refusal(lambda: attack.put(blob.data, pieces=[blob.data[100:], b"x"], offset=100))
    refusal(lambda: attack.put(spoiled_headers(attack.layout, blob)["another dtype"]))
    refusal(lambda: attack.offer(attack.checkpoint(), round=2))
    refusal(lambda: attack.offer(attack.checkpoint(sum=math.nan)))
    refusal(attack.close)
    expected = simulate(script_for(attack.contract.session, asker="mallory"))[1]
    assert attack.play_on() == expected.digest


def test_many_calls_that_wait_keep_nobody_out(attack: Attack, target: Target) -> None:
    """One peer's open calls may not take all the threads that answer."""
    held = threading.Event()

    def never() -> Iterator[memoryview]:
        held.wait(DEADLINE_S)
        yield from ()

    blob = attack.blob
    metadata = [*attack.link._metadata, *blobs.put_metadata(blob, "checkpoint", 1, 0)]
    calls = [attack.link._put.future(never(), metadata=metadata, timeout=DEADLINE_S) for _ in range(64)]
    try:
        assert run_honestly(target, "crowded", rounds=1, patience=QUICK).models
    finally:
        for call in calls:
            call.cancel()
        held.set()


# --- A live learner -------------------------------------------------------------------------------------------------

Results = Iterator[pb.Result]


@dataclass
class Cheat:
    """What a provider does otherwise than it should.

    Attributes:
        results: Changes the trajectory on its way out.
        pieces: Changes a blob's pieces on their way out.
        receipt: Changes a receipt.
        agreement: Changes an agreement.
        raw: Answers of methods, as bytes.
        fails: What closing a round fails with.
    """

    results: Callable[[Results, HostedSession], Results] = lambda results, _: results
    pieces: Callable[[Iterator[memoryview]], Iterator[memoryview]] = lambda pieces: pieces
    receipt: Callable[[sessions_pb2.SignedStatement], object] = lambda _: None
    agreement: Callable[[sessions_pb2.Agreement], object] = lambda _: None
    raw: Mapping[str, bytes] = field(default_factory=dict)
    fails: str = ""


class CheatingAssistance(assisted_servicer.AssistedLearningServicer):
    def __init__(self, sessions: HostedSessions, cheat: Cheat) -> None:
        super().__init__(sessions)
        self._cheat = cheat

    def CloseRound(self, request: pb.CloseRoundRequest, context: grpc.ServicerContext) -> sessions_pb2.SignedStatement:  # noqa: N802
        if self._cheat.fails:
            raise errors.SessionFailed(self._cheat.fails)
        receipt = super().CloseRound(request, context)
        self._cheat.receipt(receipt)
        return receipt

    def WatchResults(self, request: pb.WatchResultsRequest, context: grpc.ServicerContext) -> Results:  # noqa: N802
        yield from self._cheat.results(super().WatchResults(request, context), self._find(context)[0])


class CheatingBlobs(blobs.BlobServicer):
    def __init__(self, find: Callable[[grpc.ServicerContext], HostedSession], cheat: Cheat) -> None:
        super().__init__(find)
        self._cheat = cheat

    def Get(self, request: blobs_pb2.BlobRequest, context: grpc.ServicerContext) -> Iterator[memoryview]:  # noqa: N802
        yield from self._cheat.pieces(super().Get(request, context))


class CheatingSessions(sessions.SessionsServicer):
    def __init__(self, hosted: HostedSessions, helper: Helper, party: LocalParty, cheat: Cheat) -> None:
        describe = describing(party.name, PROTOCOL.helper, {PROTOCOL.name: PROTOCOL.version})
        super().__init__(hosted, helper, party.signer, describe)
        self._cheat = cheat

    def Propose(self, request: sessions_pb2.Proposal, context: grpc.ServicerContext) -> sessions_pb2.Agreement:  # noqa: N802
        agreement = super().Propose(request, context)
        self._cheat.agreement(agreement)
        return agreement


@contextmanager
def cheating(identity: Identity, address: str, cheat: Cheat) -> Iterator[None]:
    """A provider that is honest in all but one thing, in this process."""
    section = script_for("any", helper="cheat").party["cheat"]
    section.policy = section.policy.model_copy(update={"max_sessions": 1000})
    party = LocalParty("cheat", section, b"cheat's", MemoryStore())
    hosted = HostedSessions()
    server = NodeServer(identity, [sessions.SERVICE, blobs.SERVICE, assisted_servicer.SERVICE])
    helper = Helper(party, "provider", hosted)
    sessions_pb2_grpc.add_SessionsServicer_to_server(CheatingSessions(hosted, helper, party, cheat), server.server)
    CheatingBlobs(lambda context: sessions.session_of(hosted, context), cheat).add_to(server.server)
    assisted_learning_pb2_grpc.add_AssistedLearningServicer_to_server(CheatingAssistance(hosted, cheat), server.server)
    for path, answer in cheat.raw.items():
        service, _, method = path.partition("/")
        handler = grpc.unary_unary_rpc_method_handler(lambda _, __, answer=answer: answer)
        server.server.add_registered_method_handlers(service, {method: handler})
    server.start(address)
    try:
        yield
    finally:
        hosted.drain()
        server.stop(0)


@dataclass(frozen=True)
class Learner:
    """A learner's daemon.

    Attributes:
        node: The daemon.
        cheat: Who it takes for its second provider.
        address: Where it looks for it.
    """

    node: NodeProcess
    cheat: Identity
    address: str

    def run(self, script: str) -> dict[str, Any]:
        """Runs a session from it, as `comity run` does."""
        with ControlClient(self.node.control_url) as control, SessionProgress(quiet=True) as progress:
            return follow(control, control.run(script), progress)[0]


@pytest.fixture(scope="module")
def learner(site: Any, target: Target) -> Iterator[Learner]:
    """A learner's daemon; at the end it completes a session with the honest provider."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    peers = {"provider": {"address": target.address}, "cheat": {"address": address}}
    patience = {"call_s": 10.0, "retry_s": 1.0}
    config = {"secret": "learner's", "data": data("learner"), "peers": peers, "patience": patience}
    node = Learner(site.start("learner", "learner", **config), site.identity("cheat"), address)
    yield node
    assert node.node.process.poll() is None, node.node.last_words()
    digest = node.run(SCRIPT.format(id="honest", helper="provider", rounds=2))["digest"]
    assert digest == simulate(script_for("honest"))[1].digest


def edit(index: int, change: Callable[[pb.Checkpoint], object]) -> Cheat:
    """Changes a checkpoint of the trajectory."""

    def results(honest: Results, session: HostedSession) -> Results:
        del session
        for position, result in enumerate(honest):
            if position == index:
                change(result.checkpoint)
            yield result

    return Cheat(results=results)


def swap(index: int, change: Callable[[Layout, Blob], bytes | memoryview]) -> Cheat:
    """Puts another blob, under its right digest, in the place of a checkpoint's."""

    def results(honest: Results, session: HostedSession) -> Results:
        layout = session.role._party.task.layout
        for position, result in enumerate(honest):
            if position == index:
                other = Blob.of(bytes(change(layout, session.blobs.get(result.checkpoint.blob.digest))))
                session.blobs.publish(session.blobs.add(other).digest, "checkpoint", 1)
                result.checkpoint.blob.digest = other.digest
            yield result

    return Cheat(results=results)


def instead(change: Callable[[list[pb.Result]], Iterable[pb.Result]]) -> Cheat:
    """Gives another trajectory."""
    return Cheat(results=lambda honest, _: iter(change(list(honest))))


def with_weight(value: float) -> Callable[[Layout, Blob], memoryview]:
    """The same model with one weight replaced."""

    def change(layout: Layout, blob: Blob) -> memoryview:
        state = {name: tensor.clone() for name, tensor in layout.view(blob.data).items()}
        state["3.weight"][0, 0] = value
        return layout.pack(state).data

    return change


def corrupted(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        yield memoryview(bytes(piece[:-1]) + bytes([piece[-1] ^ 1]))


def cut(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        yield piece[: min(len(piece), 100)]
        return


def overlong(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    yield from pieces
    while True:
        yield memoryview(bytes(1000))


def setting_fields(**values: Any) -> Callable[[Message], None]:
    def change(message: Message) -> None:
        for path, value in values.items():
            *parents, last = path.split("__")
            target: Any = message
            for name in parents:
                target = getattr(target, name)
            setattr(target, last, value)

    return change


CHEATS: Mapping[str, tuple[Cheat, type[ComityError], tuple[str, ...]]] = {
    "a corrupted blob": (Cheat(pieces=corrupted), errors.BlobCorrupted, ()),
    "a blob that ends early": (Cheat(pieces=cut), errors.BlobTruncated, ("5112 bytes",)),
    "a blob that never ends": (Cheat(pieces=overlong), errors.BlobSizeMismatch, ("5112 bytes",)),
    "weights that are NaN": (swap(1, with_weight(math.nan)), errors.NonFiniteValue, ("tensor 3.weight", "NaN")),
    "weights that are infinite": (swap(5, with_weight(-math.inf)), errors.NonFiniteValue, ("an infinite value",)),
    "another dtype": (
        swap(1, lambda layout, blob: spoiled_headers(layout, blob)["another dtype"]),
        errors.TensorMismatch,
        ("F32 [16]", "I32 [16]"),
    ),
    "another shape": (
        swap(1, lambda layout, blob: spoiled_headers(layout, blob)["another shape"]),
        errors.TensorMismatch,
        ("F32 [10, 16]", "F32 [16, 10]"),
    ),
    "noise for a model": (
        swap(1, lambda layout, blob: spoiled_headers(layout, blob)["noise"]),
        errors.TensorMismatch,
        ("header",),
    ),
    "a start that was never offered": (
        swap(0, with_weight(0.5)),
        errors.MalformedMessage,
        ("did not start round 1 from an offered checkpoint",),
    ),
    "an index out of order": (
        edit(1, setting_fields(index=2)),
        errors.RoundOutOfOrder,
        ("index 1 of 6", "index 2"),
    ),
    "another iteration": (edit(1, setting_fields(iteration=7)), errors.MalformedMessage, ("expected 5", "received 7")),
    "a loss over other samples": (
        edit(1, setting_fields(loss__count=99)),
        errors.MalformedMessage,
        ("expected 100", "received 99"),
    ),
    "a loss that is NaN": (edit(1, setting_fields(loss__sum=math.nan)), errors.NonFiniteValue, ("nan",)),
    "a loss that is infinite": (edit(0, setting_fields(loss__sum=math.inf)), errors.NonFiniteValue, ("inf",)),
    "a negative loss": (edit(1, setting_fields(loss__sum=-1.0)), errors.MalformedMessage, ("-1.0",)),
    "a checkpoint without its blob": (
        edit(1, lambda checkpoint: checkpoint.ClearField("blob")),
        errors.MalformedMessage,
        ("blob",),
    ),
    "a digest that is none": (edit(1, setting_fields(blob__digest=b"x")), errors.MalformedMessage, ("32 bytes",)),
    "a digest of nothing": (edit(1, setting_fields(blob__digest=bytes(32))), errors.UnknownBlob, ("00" * 32,)),
    "nothing in a result": (instead(lambda _: [pb.Result()]), errors.MalformedMessage, ()),
    "no trajectory": (
        instead(lambda _: [pb.Result(end=pb.End(count=0))]),
        errors.MalformedMessage,
        ("round 1",),
    ),
    "an end too early": (
        instead(lambda results: [*results[:3], pb.Result(end=pb.End(count=6))]),
        errors.MalformedMessage,
        ("3",),
    ),
    "a count of something else": (
        instead(lambda results: [*results[:6], pb.Result(end=pb.End(count=7))]),
        errors.MalformedMessage,
        ("not whole", "6"),
    ),
    "fewer checkpoints than were bought": (
        instead(lambda results: [*results[:3], pb.Result(end=pb.End(count=3))]),
        errors.MalformedMessage,
        ("6", "3"),
    ),
    "more checkpoints than were bought": (
        instead(lambda results: itertools.chain(results[:6], itertools.repeat(results[5], 100))),
        errors.RoundOutOfOrder,
        ("of 6",),
    ),
    "a receipt for another round": (
        Cheat(receipt=setting_fields(round=2)),
        errors.ReceiptInvalid,
        ("another round", "expected 1", "received 2"),
    ),
    "a receipt for another offer": (
        Cheat(receipt=setting_fields(subject="00" * 32)),
        errors.ReceiptInvalid,
        ("another subject", "00" * 32),
    ),
    "a receipt that nobody signed": (
        Cheat(receipt=setting_fields(signature=bytes(64))),
        errors.ReceiptInvalid,
        ("is not signed by cheat",),
    ),
    "a request for a receipt": (
        Cheat(receipt=setting_fields(kind="request")),
        errors.ReceiptInvalid,
        ("another kind",),
    ),
    "an agreement that nobody signed": (
        Cheat(agreement=setting_fields(signature=bytes(64))),
        errors.ReceiptInvalid,
        ("is not signed",),
    ),
    "an agreement with another key": (
        Cheat(agreement=setting_fields(membership__receipt_key="ab" * 32)),
        errors.ReceiptInvalid,
        ("is not signed",),
    ),
    "a receipt of nine megabytes": (
        Cheat(receipt=setting_fields(signature=bytes(9 * 2**20))),
        errors.RemoteFailure,
        ("RESOURCE_EXHAUSTED",),
    ),
    "garbage for a receipt": (
        Cheat(raw={f"{assisted_servicer.SERVICE}/CloseRound": b"\xff" * 50}),
        errors.RemoteFailure,
        ("INTERNAL",),
    ),
    "garbage for an agreement": (
        Cheat(raw={f"{sessions.SERVICE}/Propose": b"\xff" * 50}),
        errors.RemoteFailure,
        ("INTERNAL",),
    ),
    "an agreement to another contract": (
        Cheat(agreement=setting_fields(contract_hash="ab" * 32)),
        errors.ContractMismatch,
        ("ab" * 32,),
    ),
    "an agreement of another party": (
        Cheat(agreement=setting_fields(membership__party="somebody")),
        errors.MalformedMessage,
        ("provider cheat", "provider somebody"),
    ),
    "an agreement over no samples": (
        Cheat(agreement=setting_fields(membership__samples=0)),
        errors.MalformedMessage,
        ("samples",),
    ),
    "a failure that tries to print": (
        Cheat(fails="all is\nwell\x1b[2J\r" * 40),
        errors.SessionFailed,
        ("all is",),
    ),
}


@pytest.mark.parametrize("case", CHEATS)
def test_a_provider_that_cheats(case: str, learner: Learner) -> None:
    cheat, kind, parts = CHEATS[case]
    script = SCRIPT.format(id=f"cheated-{list(CHEATS).index(case)}", helper="cheat", rounds=2)
    with cheating(learner.cheat, learner.address, cheat):
        error = refusal(lambda: learner.run(script))
    assert_clear(error, kind, *parts)
    assert str(error).isprintable()
    assert learner.node.process.poll() is None


@pytest.mark.parametrize("case", ["a corrupted blob", "weights that are NaN"])
def test_a_provider_that_cheats_as_a_user_meets_it(case: str, learner: Learner, comity: Any, tmp_path: Path) -> None:
    cheat, kind, _ = CHEATS[case]
    number = len(CHEATS) + list(CHEATS).index(case)
    (tmp_path / "session.toml").write_text(SCRIPT.format(id=f"cheated-{number}", helper="cheat", rounds=2))
    with cheating(learner.cheat, learner.address, cheat):
        done = comity("run", "session.toml", "--json", "--node", learner.node.folder / "state", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == kind.reason()
    assert done.stderr == f"comity: {json.loads(done.stdout)['message']}\n"


def test_the_honest_pair_of_the_cheats(learner: Learner) -> None:
    """The provider that the cheats are made from is honest where nothing is changed."""
    with cheating(learner.cheat, learner.address, Cheat()):
        digest = learner.run(SCRIPT.format(id="not-cheated", helper="cheat", rounds=2))["digest"]
    script = script_for("not-cheated", helper="cheat")
    script.party["cheat"].secret = SecretStr("cheat's")
    assert digest == simulate(script)[1].digest

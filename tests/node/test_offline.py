"""A session whose rounds are exchanged offline is the session, and a bundle that does not fit costs nobody anything."""

from __future__ import annotations

import resource
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from comity.errors import (
    BlobCorrupted,
    BlobTruncated,
    ComityError,
    ContractMismatch,
    InvalidValue,
    MalformedMessage,
    MissingFile,
    PolicyRefusal,
    ReceiptInvalid,
    RoundOutOfOrder,
    StateInUse,
    StorageFailed,
    TrainingDiverged,
    UnknownBlob,
    UnknownParty,
    UnknownSession,
)
from comity.ledger.receipts import Signer
from comity.node.garbage import exclusive
from comity.node.party import LocalParty
from comity.node.sessions.accepted import AcceptedSessions
from comity.node.sessions.initiated import InitiatedSessions
from comity.session.session_registry import SessionRegistry
from comity.simulation.in_process import simulate
from comity.store.secrets import GivenSecrets
from comity.store.sql_store import SqlStore
from comity.transport.cards import fingerprint, read_card
from comity.wire.v1 import assisted_learning_pb2 as pb
from comity.wire.v1 import bundles_pb2, sessions_pb2
from tests.node.offline_pair import ROLES, Journey, script, secret_of, whole_script


@pytest.fixture(scope="module")
def expected() -> Any:
    """What the session comes to in one process."""
    return simulate(whole_script())[0]


def test_a_session_comes_to_what_it_comes_to_over_a_network(tmp_path: Path, expected: Any) -> None:
    journey = Journey.prepared(tmp_path)
    journey.agree()
    result = journey.finish()
    assert (result.digest, result.metrics) == (expected.digest, expected.metrics)
    assert (result.bytes_sent, result.bytes_received) == (expected.bytes_sent, expected.bytes_received)
    assert result.ledger_verified
    journey.require_agreement()
    assert (tmp_path / "clinic" / "state" / "sessions" / "trial" / "model.safetensors").is_file()
    assert not list((tmp_path / "hospital" / "state" / "blobs").iterdir())


def test_everything_twice_is_everything_once(tmp_path: Path, expected: Any) -> None:
    journey = Journey.prepared(tmp_path)

    def twice(party: str) -> Path:
        first = journey.export(party)
        data = first.file.read_bytes()
        assert journey.export(party) == first
        assert first.file.read_bytes() == data
        return first.file

    journey.begin()
    results, offline = [], []
    for sender, receiver in [("clinic", "hospital"), ("hospital", "clinic")] * 3 + [("clinic", "hospital")]:
        offline.append((receiver, twice(sender)))
        taken = [journey.take(receiver, offline[-1][1]) for _ in range(2)]
        results += [each.result for each in taken if each.result is not None]
    # Old ones, too, are harmless when they come again.
    for party, file in offline:
        assert journey.take(party, file).result is None
    assert [each.digest for each in results] == [expected.digest]
    journey.require_agreement()


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """A hospital that waits for the first round's bundle, which lies on the drive."""
    journey = Journey.prepared(tmp_path_factory.mktemp("offline") / "journey")
    journey.agree()
    journey.export("clinic")
    return journey


@pytest.fixture
def journey(waiting: Journey, tmp_path: Path) -> Journey:
    """The same, for one test."""
    shutil.copytree(waiting.root, tmp_path / "journey")
    return Journey(tmp_path / "journey")


GOOD, ANSWER = "trial-round-1-clinic.bundle", "trial-round-1-hospital.bundle"
HEAD = len(b"comity bundle 1\n") + 4


def head_of(data: bytes) -> bundles_pb2.Bundle:
    (length,) = struct.unpack(">I", data[HEAD - 4 : HEAD])
    return bundles_pb2.Bundle.FromString(data[HEAD : HEAD + length])


def with_head(data: bytes, change: Callable[[bundles_pb2.BundleContents], None], **outer: Any) -> bytes:
    """The bundle with another head, signed by the clinic: it may do with its own key what it likes."""
    (length,) = struct.unpack(">I", data[HEAD - 4 : HEAD])
    bundle = head_of(data)
    contents = bundles_pb2.BundleContents.FromString(bundle.contents)
    change(contents)
    bundle.contents = contents.SerializeToString()
    bundle.signature = clinic().sign_bundle(bundle.contents)
    for name, value in outer.items():
        setattr(bundle, name, value)
    head = bundle.SerializeToString()
    return data[: HEAD - 4] + struct.pack(">I", len(head)) + head + data[HEAD + length :]


def clinic() -> Signer:
    seed = blake3(secret_of("clinic").encode(), derive_key_context="comity receipt key").digest()
    return Signer.from_seed(seed, "clinic")


def edited(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def change(**fields: Any) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        def apply(contents: bundles_pb2.BundleContents) -> None:
            for name, value in fields.items():
                setattr(contents, name, value)

        return with_head(data, apply)

    return make


def without_first_blob(data: bytes) -> bytes:
    whole = bundles_pb2.BundleContents.FromString(head_of(data).contents)
    made = with_head(data, lambda contents: contents.blobs.__delitem__(0))
    begin = len(made) - whole.blob_size * len(whole.blobs)
    return made[:begin] + made[begin + whole.blob_size :]


def other_round(data: bytes) -> bytes:
    def apply(contents: bundles_pb2.BundleContents) -> None:
        for each in contents.calls:
            if each.request.Is(pb.OfferRequest.DESCRIPTOR):
                offer = pb.OfferRequest.FromString(each.request.value)
                offer.round = 2
                each.request.Pack(offer)

    return with_head(data, apply)


def with_other_message(data: bytes) -> bytes:
    return with_head(data, lambda contents: contents.calls[0].request.Pack(sessions_pb2.EndRequest()))


def with_other_call(data: bytes) -> bytes:
    return with_head(data, lambda contents: setattr(contents.calls[0], "method", "/comity.wire.v1.Sessions/End"))


def with_broken_message(data: bytes) -> bytes:
    return with_head(data, lambda contents: setattr(contents.calls[0].request, "value", b"\xff\xff"))


def with_short_digest(data: bytes) -> bytes:
    return with_head(data, lambda contents: setattr(contents.blobs[0], "digest", b"short"))


BAD: dict[str, tuple[Callable[[bytes], bytes], type[ComityError], str]] = {
    "a blob that is missing": (without_first_blob, UnknownBlob, "no such blob"),
    "empty": (lambda data: b"", InvalidValue, "is no bundle"),
    "something else": (lambda data: b"PK\x03\x04" + data, InvalidValue, "is no bundle"),
    "cut in its length": (lambda data: data[: HEAD - 2], BlobTruncated, "is not whole"),
    "cut in its head": (lambda data: data[: HEAD + 50], BlobTruncated, "is not whole"),
    "cut by a byte": (lambda data: data[:-1], BlobTruncated, "is not whole"),
    "longer": (lambda data: data + b"\0", MalformedMessage, "does not fit together"),
    "a giant head": (lambda data: data[: HEAD - 4] + b"\xff" * 4 + data[HEAD:], MalformedMessage, "a head of at most"),
    "giant blobs": (change(blob_size=2**63), BlobTruncated, "is not whole"),
    "no head": (lambda data: data[: HEAD - 4] + bytes(4) + data[HEAD:], UnknownParty, "no receipt key"),
    "another head": (lambda data: data[:HEAD] + b"\xff" * (len(data) - HEAD), MalformedMessage, "a signed head"),
    "edited in its contents": (lambda data: edited(data, HEAD + 40), ReceiptInvalid, "as it was made"),
    "edited in a blob": (lambda data: edited(data, len(data) - 3), BlobCorrupted, "not those announced"),
    "somebody else's": (lambda data: with_head(data, lambda _: None, sender="mallory"), UnknownParty, "mallory"),
    "a path for a name": (lambda data: with_head(data, lambda _: None, sender="../clinic"), UnknownParty, "../clinic"),
    "another party's key": (
        lambda data: with_head(data, lambda _: None, signature=Signer.from_seed(bytes(32), "").sign_bundle(b"")),
        ReceiptInvalid,
        "as it was made",
    ),
    "for somebody else": (change(receiver="surgery"), UnknownParty, "the bundle is for surgery"),
    "another session's": (change(session="other"), UnknownSession, "no such session here"),
    "a path for a session": (change(session="../../trial"), UnknownSession, "no such session here"),
    "another contract's": (change(contract_hash="0" * 64), ContractMismatch, "another contract"),
    "another round's": (other_round, RoundOutOfOrder, "not of the active round"),
    "a message too many": (with_other_message, MalformedMessage, "EndRequest"),
    "a call that cannot be brought": (with_other_call, MalformedMessage, "cannot be brought"),
    "a message that cannot be read": (with_broken_message, MalformedMessage, "other bytes"),
    "a digest that is none": (with_short_digest, MalformedMessage, "named by no digest"),
}


def test_bad_bundles_are_one_line_each_and_change_nothing(journey: Journey, answered: list[bytes]) -> None:
    good, bad = (journey.drive / GOOD).read_bytes(), journey.drive / "bad.bundle"
    before = journey.entries("hospital")
    files = set(journey.root.rglob("*")) | {bad}
    for case, (make, error, words) in BAD.items():
        bad.write_bytes(make(good))
        with pytest.raises(ComityError) as caught:
            journey.take("hospital", bad)
        assert type(caught.value) is error, case
        assert words in str(caught.value), case
        assert "\n" not in str(caught.value)
    new = {each.relative_to(journey.root) for each in set(journey.root.rglob("*")) - files}
    assert all(each.is_relative_to(Path("hospital", "state")) for each in new), "nothing is written beside the state"
    assert journey.entries("hospital")[: len(before)] == before
    journey.take("hospital", journey.drive / GOOD)
    assert blobs_of(journey.export("hospital").file) == answered


@pytest.fixture(scope="module")
def answered(waiting: Journey, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The checkpoints that the hospital answers with, when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("answered") / "journey"
    shutil.copytree(waiting.root, folder)
    Journey(folder).take("hospital", waiting.drive / GOOD)
    return blobs_of(Journey(folder).export("hospital").file)


def blobs_of(path: Path) -> list[bytes]:
    contents = bundles_pb2.BundleContents.FromString(head_of(path.read_bytes()).contents)
    return [each.digest for each in contents.blobs]


def test_a_file_that_is_not_there_is_said_so(journey: Journey) -> None:
    for path in (journey.drive, journey.drive / "none.bundle"):
        with pytest.raises(MissingFile, match="expected a bundle"):
            journey.take("hospital", path)
    with journey.desk("hospital") as desk, pytest.raises(MissingFile, match="folder for the bundle"):
        desk.export("", journey.drive / "none")


@pytest.mark.parametrize("party", ROLES)
def test_a_node_that_runs_is_left_alone(party: str, journey: Journey) -> None:
    with exclusive(journey.root / party / "state"), pytest.raises(StateInUse, match="stop it"):
        journey.take(party, journey.drive / GOOD)


def test_a_full_disk_costs_the_import_alone(journey: Journey, answered: list[bytes]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StorageFailed):
            journey.take("hospital", journey.drive / GOOD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journey.take("hospital", journey.drive / GOOD)
    assert blobs_of(journey.export("hospital").file) == answered


def test_parties_without_a_good_card_are_refused(journey: Journey) -> None:
    config = journey.root / "hospital" / "node.toml"
    card = journey.root / "hospital" / "trust" / "clinic.pem"
    text = config.read_text()
    config.write_text(
        text.replace("[policy]\n", f'[policy]\nrevoked = ["{fingerprint(read_card(card).certificates[0])}"]\n')
    )
    with pytest.raises(PolicyRefusal, match="clinic's certificate"):
        journey.take("hospital", journey.drive / GOOD)
    config.write_text(text)
    card.write_bytes(read_card(card).roots)
    with pytest.raises(UnknownParty, match="comity trust add"):
        journey.take("hospital", journey.drive / GOOD)
    card.unlink()
    with pytest.raises(UnknownParty, match="comity trust add"):
        journey.take("hospital", journey.drive / GOOD)
    shutil.copy(journey.root / "clinic" / "clinic.pem", card)
    assert journey.take("hospital", journey.drive / GOOD).round == 1


def test_the_policy_is_that_of_the_network(tmp_path: Path) -> None:
    journey = Journey.prepared(tmp_path, hospital="max_rounds = 1")
    proposal = journey.begin().file
    with pytest.raises(PolicyRefusal, match="max_rounds"):
        journey.take("hospital", proposal)
    assert journey.state("hospital") == "unknown"
    assert journey.state("clinic") == "waiting"


def test_the_quota_is_that_of_the_network(tmp_path: Path) -> None:
    journey = Journey.prepared(tmp_path, clinic="max_state_bytes = 1000")
    journey.take("hospital", journey.begin().file)
    with pytest.raises(PolicyRefusal, match="no room"):
        journey.take("clinic", journey.export("hospital").file)
    assert journey.state("clinic") == "waiting"


def test_a_learner_that_diverges_tells_the_provider_with_its_last_bundle(tmp_path: Path) -> None:
    journey = Journey.prepared(tmp_path)
    journey.take("hospital", journey.begin(script(learning_rate=1e30)).file)
    journey.take("clinic", journey.export("hospital").file)
    with pytest.raises(TrainingDiverged):
        journey.export("clinic")
    assert journey.state("clinic") == "failed"
    last = journey.export("clinic")
    assert (last.ending, last.blobs) == ("failed", 0)
    assert not journey.take("hospital", last.file).export_due
    assert journey.state("hospital") == "failed"


def test_an_answer_that_comes_too_early_is_refused(journey: Journey) -> None:
    journey.take("hospital", journey.drive / GOOD)
    answer = journey.export("hospital").file
    early = Journey.prepared(journey.root / "early")
    early.begin()
    # Same keys, same contract: only the round is not on there yet.
    with pytest.raises(RoundOutOfOrder, match="expected round 0"):
        early.take("clinic", answer)


def test_a_bundle_that_was_half_taken_is_asked_for_again(journey: Journey, answered: list[bytes]) -> None:
    bad = journey.drive / "bad.bundle"
    bad.write_bytes(BAD["edited in a blob"][0]((journey.drive / GOOD).read_bytes()))
    with pytest.raises(BlobCorrupted):
        journey.take("hospital", bad)
    with pytest.raises(RoundOutOfOrder, match="import the bundle again"):
        journey.export("hospital")
    journey.take("hospital", journey.drive / GOOD)
    assert blobs_of(journey.export("hospital").file) == answered


def test_ones_own_bundle_is_to_be_carried(journey: Journey) -> None:
    with pytest.raises(UnknownParty, match="this node's own bundle.*carry it to them"):
        journey.take("clinic", journey.drive / GOOD)


def test_the_helping_daemon_does_the_work_meanwhile(journey: Journey, answered: list[bytes]) -> None:
    journey.take("hospital", journey.drive / GOOD)
    config = journey.config("hospital")
    with closing(SqlStore(config.store_url)) as store:
        party = LocalParty("hospital", config, GivenSecrets(secret_of("hospital").encode()), store, config.state_dir)
        hosted = SessionRegistry(store)
        AcceptedSessions(party, "provider", hosted).restore()
        active = hosted.find("trial")
        assert active is not None
        found = active.of("clinic")
        assert found is not None
        trajectory = found.worker.call(lambda: found.role.trajectory(1))
        assert len(list(trajectory.watch(0))) == len(answered) + 1, "its first is one of the learner's"
        hosted.drain()
    before = journey.entries("hospital")
    assert blobs_of(journey.export("hospital").file) == answered
    new = [each.fact.matter for each in journey.entries("hospital")[len(before) :]]
    assert set(new) == {"intended"}, "all that was left to do was to write it"


def test_the_daemon_leaves_a_carried_session_to_its_operator(journey: Journey) -> None:
    config = journey.config("clinic")
    with closing(SqlStore(config.store_url)) as store:
        party = LocalParty("clinic", config, GivenSecrets(secret_of("clinic").encode()), store, config.state_dir)
        asked = InitiatedSessions(party, config)
        asked.restore("learner")
        found = asked.find("trial")
        assert found is not None
        assert not found.running
        assert [each.kind for each in found.events.watch(0)] == ["waiting", "session-stopped"]
        with pytest.raises(InvalidValue, match="comity offline export"):
            asked.resume("trial")
        assert not asked.cancel("trial"), "nobody can be told at once"
    last = journey.export("clinic")
    assert last.ending == "cancelled"
    journey.take("hospital", last.file)
    assert journey.state("hospital") == "cancelled"


def test_only_the_party_that_asks_begins(journey: Journey) -> None:
    with journey.desk("hospital") as desk, pytest.raises(InvalidValue, match="expected a learner node"):
        desk.begin(script())


def test_an_id_that_is_taken_is_refused(journey: Journey) -> None:
    with journey.desk("clinic") as desk:
        assert desk.begin(script()) == "trial"
        with pytest.raises(InvalidValue, match="id is taken"):
            desk.begin(script(rounds=3))

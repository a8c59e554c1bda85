"""Nothing of a sample crosses: all that daemons say to each other is recorded, undone to its bytes, and searched.

The parties talk in plaintext through a relay that records. What it recorded is taken apart again here, from TCP to
HTTP/2 frames, headers and messages, and blobs are put together from their chunks: a sample may not be anywhere, in any
form in which it could have left. That the search finds what is there is shown with providers that leak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load as load_safetensors

from comity.cli.progress import SessionProgress
from comity.cli.run import follow
from comity.errors import ComityError, TrainingDiverged
from comity.node.control_client import ControlClient
from comity.node.operations import Operations
from comity.protocols.assisted_learning.task import AssistedTaskBuilder
from comity.tensors import Layout, State
from comity.transport import blobs as blob_transport
from comity.transport import peer_connection as link_module
from comity.transport.addresses import socket_url
from comity.transport.methods import Method
from comity.wire.v1 import sessions_pb2
from tests.e2e.network import in_a_thread
from tests.e2e.wiretap import MEAN, RUN, STD, TYPES, Recording, make_samples, undo
from tests.proxy import proxying

SECRETS = {"learner": "the-learner's-own-secret", "provider": "the-provider's-own-secret"}

SCRIPT = f"""\
[session]
protocol = "assisted_learning"
id = "{{id}}"
acceptors = ["provider"]
rounds = {{rounds}}

# Too large a model to travel with the messages that name it.
[session.model]
name = "mlp"
options = {{{{ hidden = 300 }}}}

[session.normalization]
mean = [{MEAN}]
std = [{STD}]

[session.terms]
learning_rate = {{learning_rate}}
batch_size = 16
iterations = 40
sampling_period = 5
evaluation_batch_size = 16
"""


LEARNER, PROVIDER = make_samples(1, 24, as_floats=False), make_samples(2, 40, as_floats=False)
NEEDLES = {name: list(party.needles()) for name, party in (("learner", LEARNER), ("provider", PROVIDER))}


# --- The daemons ----------------------------------------------------------------------------------------------------------


def config(party: str, folder: Path, /, **more: Any) -> dict[str, Any]:
    return {
        "data": {"source": f"npz:{folder / 'vault-of-the-sentinel' / party}.npz"},
        "secret": SECRETS[party],
        "privacy": {"preset": "public"},
        "retry": {"call_s": 20.0, "retry_s": 5.0},
    } | more


def save_data(folder: Path) -> None:
    vault = folder / "vault-of-the-sentinel"
    vault.mkdir()
    LEARNER.save(vault / "learner.npz")
    PROVIDER.save(vault / "provider.npz")


def run(control_url: str, script: str) -> dict[str, Any]:
    with ControlClient(control_url) as control, SessionProgress(quiet=True) as progress:
        return follow(control, control.run(script), progress)[0]


@dataclass(frozen=True)
class Captured:
    """A session between two daemons.

    Attributes:
        result: What it came to.
        model: The model that it ended in.
        recording: What crossed.
    """

    result: dict[str, Any]
    model: bytes
    recording: Recording


@pytest.fixture(scope="module")
def captured(site: Any) -> Captured:
    """Two daemons as processes: a whole session, one that is refused and one that fails, all of it recorded."""
    save_data(site.folder)
    provider = site.launch(
        "provider",
        "provider",
        secure=False,
        **config("provider", site.folder, listen="127.0.0.1:0", policy={"max_rounds": 5}),
    )
    with proxying(provider.wait_ready()) as relay:
        peers = {"provider": {"address": relay.address}}
        learner = site.start("learner", "learner", secure=False, **config("learner", site.folder, peers=peers))
        result = run(learner.control_url, SCRIPT.format(id="watched", rounds=4, learning_rate=0.01))
        with pytest.raises(ComityError, match="max_rounds"):
            run(learner.control_url, SCRIPT.format(id="refused", rounds=6, learning_rate=0.01))
        with pytest.raises(TrainingDiverged):
            run(learner.control_url, SCRIPT.format(id="failed", rounds=1, learning_rate=1e30))
        learner.stop()
        provider.stop()
    model = site.folder / "learner" / "state" / "sessions" / "watched" / "model.safetensors"
    return Captured(result, model.read_bytes(), undo(relay.connections))


def test_all_that_crossed_was_seen(captured: Captured) -> None:
    """The recording is whole: every checkpoint of every round, to the byte, and the session's own count of bytes."""
    blobs = captured.recording.blobs()
    (last,) = {each for each in blobs if blake3(each).hexdigest() == captured.result["digest"]}
    # A file has more in its header than what crossed: what the model is.
    of_file, crossed = load_safetensors(captured.model), load_safetensors(last)
    assert of_file.keys() == crossed.keys()
    assert all(torch.equal(of_file[name], crossed[name]) for name in crossed)
    for each in blobs:
        assert set(load_safetensors(each)) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    metrics = captured.result["metrics"]
    assert len(metrics["global_loss_by_round"]) == 4
    uploads, downloads = captured.recording.blobs("asked"), captured.recording.blobs("answered")
    sizes = len(last)
    assert captured.result["bytes_received"]["checkpoint"] == len(downloads) * sizes
    # The session that fails sends its first checkpoints too.
    assert captured.result["bytes_sent"]["checkpoint"] <= len(uploads) * sizes
    # Nobody checks a peer here, or joins a session that is open to many.
    idle = {
        f"{name}:{way}"
        for name in ("Sessions/Describe", "Sessions/Draft", "Sessions/Fetch")
        for way in ("asked", "answered")
    }
    # Of one provider nobody asks what it thinks of another's models.
    idle |= {f"AssistedLearning/Assess:{way}" for way in ("asked", "answered")}
    others = {method for method in TYPES if not method.startswith(("AssistedLearning/", "Blobs/", "Sessions/"))}
    assert {call.method for call in captured.recording.calls} == set(TYPES) - idle - others


@pytest.mark.parametrize("party", NEEDLES)
def test_no_sample_crosses(captured: Captured, party: str) -> None:
    assert captured.recording.find(NEEDLES[party]) == []


def test_neither_secrets_nor_places_cross(captured: Captured) -> None:
    private = [*((f"secret of {party}", secret.encode()) for party, secret in SECRETS.items())]
    private += [("a path", b"vault-of-the-sentinel"), ("a file", b".npz")]
    assert captured.recording.find(private) == []


def test_a_search_for_what_did_cross_finds_it(captured: Captured) -> None:
    """Any sixteen weights of the final model are found as any sixteen pixels would be, and what messages say as well."""
    weights = load_safetensors(captured.model)["1.weight"].numpy().reshape(-1)
    parts = [(f"weights {begin}", weights[begin : begin + RUN].tobytes()) for begin in range(0, weights.size, RUN)]
    words = [(word, word.encode()) for word in ("watched", "buy fewer rounds", "comity-digest", "checkpoint")]
    assert captured.recording.find([*parts, *words]) == [name for name, _ in [*parts, *words]]


# --- Leaks, which must be found -------------------------------------------------------------------------------------------


def leak_in_a_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample, normalised, in the place of some weights: the blob is a model in all else."""
    sample = PROVIDER.forms()["normalized"][7]
    honest = Layout.pack

    def pack(layout: Layout, state: State) -> Any:
        if "1.weight" not in state:  # the optimiser's, which stays at home
            return honest(layout, state)
        leaking = {name: tensor.clone() for name, tensor in state.items()}
        leaking["1.weight"].view(-1)[5 : 5 + sample.size] = leaking["1.weight"].new_tensor(sample)
        return honest(layout, leaking)

    monkeypatch.setattr(Layout, "pack", pack)
    # A model is tried over the wire before a session, and would be found to be another one.
    monkeypatch.setattr(AssistedTaskBuilder, "try_out", lambda *_: None)


def leak_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, in so small pieces that no message holds enough of it."""
    monkeypatch.setattr(blob_transport, "CHUNK", 24)
    leak_in_a_blob(monkeypatch)


def leak_in_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample, as stored, for the signature under a receipt: they are both 64 bytes."""
    sample = PROVIDER.forms()["uint8"][7].tobytes()
    honest = Method.encode_answer

    def encode_answer(self: Method, *values: Any) -> Any:
        message = honest(self, *values)
        if isinstance(message, sessions_pb2.SignedStatement):
            message.signature = sample
        return message

    monkeypatch.setattr(Method, "encode_answer", encode_answer)


def leak_in_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample beside an upload; the learner's, since it is the learner who asks."""
    sample = LEARNER.forms()["scaled"][7]
    honest = link_module.put_metadata

    def beside(*arguments: Any) -> tuple[tuple[str, Any], ...]:
        return (*honest(*arguments), ("comity-note-bin", sample.tobytes()))

    monkeypatch.setattr(link_module, "put_metadata", beside)


def leak_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels in the words of an error."""
    labels = PROVIDER.y.astype(np.uint8).tobytes()

    def refuse(*_: object) -> None:
        raise TrainingDiverged("training diverged", received=labels.decode("latin-1"))

    monkeypatch.setattr("comity.protocols.assisted_learning.provider.Provider.close", refuse)


LEAKS: Mapping[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = {
    "a blob": (leak_in_a_blob, "provider", "sample 7 as normalized"),
    "chunks": (leak_in_chunks, "provider", "sample 7 as normalized"),
    "a field": (leak_in_a_field, "provider", "sample 7 as uint8"),
    "a header": (leak_in_a_header, "learner", "sample 7 as scaled"),
    "an error": (leak_in_an_error, "provider", "labels as uint8"),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found(leak: str, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, party, name = LEAKS[leak]
    save_data(short_path)
    with ExitStack() as stack:

        def start(role: str, **more: Any) -> Operations:
            values = config(role, short_path, party=role, state_dir=short_path / role, insecure=True, **more)
            return stack.enter_context(in_a_thread(role, values))

        provider = start("provider", listen="127.0.0.1:0")
        relay = stack.enter_context(proxying(provider.address))
        start("learner", peers={"provider": {"address": relay.address}})
        spoil(monkeypatch)
        try:
            run(
                socket_url(short_path / "learner" / "control.sock"),
                SCRIPT.format(id="leaking", rounds=1, learning_rate=0.01),
            )
        except ComityError:
            assert leak in {"an error", "a field"}
    recording = undo(relay.connections)
    assert name in recording.find(NEEDLES[party])
    other = "learner" if party == "provider" else "provider"
    assert recording.find(NEEDLES[other]) == []

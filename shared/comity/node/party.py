"""A party on its own machine: its data, its secret, what it keeps, and its seat in a session."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from blake3 import blake3

from comity.contract import Contract, Membership, ModelSpec, TaskSpec, TrainingTerms
from comity.data import Splits, load_data, no_samples
from comity.errors import InvalidValue, MalformedMessage, ModelSignatureMismatch, PolicyRefusal, TaskMismatch
from comity.models import build
from comity.node.config import PartyConfig
from comity.session.blob_files import BlobFolder
from comity.session.blobs import SessionBlobs
from comity.session.events import Event, Json, Observer
from comity.session.gate import EgressGate
from comity.session.journal import Journal
from comity.session.ledger import Fact
from comity.session.notary import Notary, record_opening
from comity.session.outcome import Outcome
from comity.session.receipts import Signer
from comity.session.seat import Place, Seat
from comity.session.store import Store
from comity.tensors import Layout
from comity.training import Classification, Secret, choose_device
from comity.transport.protocol import ProtocolDefinition
from comity.transport.sessions import Ending


class LocalParty:
    """A party and what it holds.

    Args:
        name: Name of the party.
        config: Its data and settings.
        secret: Source of its own randomness and of its key.
        store: Its ledger, sessions and journals.
        folder: Where blobs of sessions are kept; None for memory.
    """

    def __init__(self, name: str, config: PartyConfig, secret: bytes, store: Store, folder: Path | None = None) -> None:
        self.name = name
        self.config = config
        self.store = store
        self.signer = Signer.from_seed(blake3(secret, derive_key_context="comity receipt key").digest(), name)
        self._secret = secret
        self._folder = folder

    @cached_property
    def splits(self) -> Splits:
        """The party's samples, read once.

        Raises:
            InvalidValue: It has none.
        """
        if self.config.data is None:
            raise InvalidValue(
                f"{self.name} has no data",
                expected="[data] with a source",
                received="nothing",
                action="configure [data]",
            )
        return load_data(self.config.data)

    @property
    def samples(self) -> int:
        """Number of training samples; 0 for a party without data."""
        return 0 if self.config.data is None else len(self.splits.train)

    def membership(self, role: str) -> Membership:
        """This party's part in a session."""
        return Membership(party=self.name, role=role, samples=self.samples, receipt_key=self.signer.public_key)

    def task_spec(self, mean: tuple[float, ...], std: tuple[float, ...]) -> TaskSpec:
        """The task that this party's data are for."""
        train = self.splits.train
        return TaskSpec(input_shape=train.input_shape, classes=train.classes, mean=mean, std=std)

    def place(self, contract: Contract, own: Membership, observe: Observer) -> Place:
        """This party's place in a session, with what it did in it before.

        Raises:
            RefusedError: This party's model or data do not fit the contract.
            StorageError: What was kept cannot be read.
        """
        gates: list[EgressGate] = []

        def observed(event: Event) -> None:
            if event.kind == "round-finished":
                sent, received = (sum(gate.delivered(way) for gate in gates) for way in ("sent", "received"))
                event = replace(event, fields={**event.fields, "bytes_sent": sent, "bytes_received": received})
            observe(event)

        journal = Journal(self.store, contract.session)
        return Place(contract, own, self.task(contract), self._blobs(contract.session), journal, observed, gates)

    def seat(self, place: Place, peer: Membership, *, apart: bool = False) -> Seat:
        """This party's place opposite one peer.

        Args:
            place: Its place in the session.
            peer: The peer's part in it.
            apart: Whether what the peer sends is kept apart from what others do.

        Raises:
            StorageError: What was kept cannot be read.
        """
        contract = place.contract
        with self.store.transaction():
            record_opening(self.store, contract, place.own, peer)
        gate = EgressGate(contract, self.config.policy, self.store, peer.party)
        place.gates.append(gate)
        notary = Notary(self.signer, self.store, contract, peer)
        blobs = self._blobs(contract.session, f"from-{peer.party}") if apart else place.blobs
        return Seat(contract, place.own, peer, place.task, blobs, place.journal, gate, notary, place.observe)

    def _blobs(self, session: str, *parts: str) -> SessionBlobs:
        return SessionBlobs(None if self._folder is None else BlobFolder(self._folder.joinpath(session, *parts)))

    def require_room(self, contract: Contract, own: Membership, peer: Membership, protocol: ProtocolDefinition) -> None:
        """Checks, before a session is accepted, that there is room for what it will keep.

        Raises:
            PolicyRefusal: There is not.
        """
        if self._folder is None:
            return
        needed = protocol.blobs_held(contract, own, peer) * self.task(contract).layout.size
        free = bytes_free(self._folder, self.config.policy.max_state_bytes)
        if needed > free:
            raise PolicyRefusal(
                f"{self.name} has no room for the session",
                expected=f"{needed / 1e6:.0f} MB for its checkpoints",
                received=f"{max(free, 0) / 1e6:.0f} MB",
                action="raise policy.max_state_bytes or free space with comity gc; or use a longer sampling_period",
            )

    def keep_result(self, session: str, outcome: Outcome, result: Mapping[str, Json]) -> None:
        """Writes a session's models and its result to files beside the blobs, each whole or not at all."""
        if self._folder is None:
            return
        folder = self._folder.parent / "sessions" / session
        folder.mkdir(parents=True, exist_ok=True)
        for index, model in enumerate(outcome.models):
            name = "model.safetensors" if len(outcome.models) == 1 else f"model-{index}.safetensors"
            _write(folder / name, model.data)
        _write(folder / "result.json", json.dumps(result, indent=2).encode())

    def end(self, session: str, ending: Ending, result: Mapping[str, Json] | None = None) -> None:
        """Keeps how a session ended, and drops its blobs and its journal."""
        kept = self.store.find(session)
        if kept is None or kept.state != "active":
            return
        ended = {**(result or {}), "rounds_finished": self.rounds_finished(session)}
        with self.store.transaction():
            self.store.record(Fact("ended", session, 0, str(kept.peers[0]["party"]) if kept.peers else ""))
            self.store.save(replace(kept, state=ending, result=ended))
        if self._folder is not None:
            shutil.rmtree(self._folder / session, ignore_errors=True)
        self.store.forget(session)

    def rounds_finished(self, session: str) -> int:
        """Rounds that this party is done with, of a session that is on."""
        return sum(record.kind == "finished" for record in self.store.records(session))

    def task(self, contract: Contract, splits: Splits | None = None) -> Classification:
        """This party's model and data, as a contract wants them.

        Args:
            contract: The contract.
            splits: Other data to use, for comparisons; None for the party's own.

        Raises:
            UnknownModel: The model's name is unknown here.
            ModelSignatureMismatch: The name builds other tensors here.
            TaskMismatch: The data here are for another task.
            MalformedMessage: The terms are not those of a protocol that trains.
        """
        spec, terms = contract.task, contract.terms
        if not isinstance(terms, TrainingTerms):
            raise MalformedMessage(
                "the terms are not for training", expected="batch sizes", received=type(terms).__name__
            )
        own = spec if self.config.data is None else self.task_spec(spec.mean, spec.std)
        if own != spec:
            action = "use data with inputs of one shape and the same classes on both sides"
            raise TaskMismatch(
                f"{self.name}'s data are for another task",
                expected=_described(spec),
                received=_described(own),
                action=action,
            )
        wanted = contract.model
        model = build(
            wanted.name, input_shape=spec.input_shape, classes=spec.classes, options=wanted.options, seed=contract.seed
        )
        signature = Layout.of(model.state_dict()).signature
        if signature != wanted.signature:
            raise ModelSignatureMismatch(
                f"{self.name} builds other tensors for {wanted.name}",
                expected=wanted.signature,
                received=signature,
                action="run the same version of comity, and of the model, on both sides",
            )
        return Classification(
            model,
            splits or (self.splits if self.config.data is not None else no_samples(spec.input_shape, spec.classes)),
            normalization=(spec.mean, spec.std),
            batch_size=terms.batch_size,
            evaluation_batch_size=terms.evaluation_batch_size,
            secret=Secret(self._secret, contract.session),
            device=choose_device(self.config.device),
        )


def signed_model(name: str, options: dict[str, bool | int | float | str], task: TaskSpec, seed: int) -> ModelSpec:
    """A model spec with the signature that the model has here.

    Raises:
        UnknownModel: The name is unknown here.
        InvalidValue: The options do not fit.
    """
    model = build(name, input_shape=task.input_shape, classes=task.classes, options=options, seed=seed)
    return ModelSpec(name=name, options=options, signature=Layout.of(model.state_dict()).signature)


def bytes_used(folder: Path) -> int:
    """What the files in a folder take, in bytes; 0 where it is not there yet."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_free(folder: Path, quota: int | None) -> int:
    """What may still be kept in a folder, in bytes; less than 0 where its quota is passed.

    Args:
        folder: The folder; it need not be there yet.
        quota: Most that it may hold, in bytes; None for what the disk holds.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    return free if quota is None else min(free, quota - bytes_used(folder))


def own_secret(config: PartyConfig, state_dir: Path) -> bytes:
    """The configured secret, or the one that is kept in `state_dir`, made at first use."""
    if config.secret is not None:
        return config.secret.get_secret_value().encode()
    path = state_dir / "secret"
    if not path.exists():
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_bytes(secrets.token_bytes(32))
        part.replace(path)
    return path.read_bytes()


def _described(task: TaskSpec) -> str:
    shape = "×".join(str(length) for length in task.input_shape)
    return f"{task.kind} of {shape} inputs into {task.classes} classes"


def _write(path: Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)

"""A learner and a provider on digits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from comity.blobs.session_blobs import SessionBlobs
from comity.contract import WEEK_S, Contract, Membership, ModelSpec
from comity.data import DataConfig, Splits, load_data
from comity.ledger.receipts import Signer
from comity.models import build
from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import ignore
from comity.session.gate import EgressGate
from comity.session.policy import Policy
from comity.session.receipt_book import ReceiptBook, record_opening
from comity.session.waiting import Waits
from comity.store.journal import Journal
from comity.store.memory_store import MemoryStore
from comity.tasks.classification import classification
from comity.tensors import Layout
from comity.training import Secret, Supervised


def _make_contract(**changes: Any) -> Contract:
    values: dict[str, Any] = {
        "protocol": PROTOCOL.name,
        "version": PROTOCOL.version,
        "session": "s-1",
        "seed": 7,
        "rounds": 3,
        "models": {"model": ModelSpec(name="mlp", options={"hidden": 8}, signature="0" * 64)},
        "task": classification((1, 8, 8), 10),
        "max_silence_s": WEEK_S,
        "initiator": "clinic",
        "acceptors": ("hospital",),
        "egress": PROTOCOL.egress,
        "terms": AssistedLearningTerms(),
    }
    return Contract(**(values | changes))


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., Contract]:
    """A contract between clinic and hospital, with any of its fields replaced."""
    return _make_contract


@dataclass(frozen=True)
class Pair:
    """Both peer_contexts of one session, and the stores behind them."""

    learner: PeerContext
    provider: PeerContext
    learner_store: MemoryStore
    provider_store: MemoryStore


@cache
def _digits(gamma: float, share: str, seed: int) -> Splits:
    partition = {"name": "imbalance", "gamma": gamma, "share": share, "seed": seed}
    return load_data(DataConfig.model_validate({"source": "digits", "per_class": 20, "partition": partition}))


@pytest.fixture(scope="session")
def make_pair(
    make_member: Callable[[str, str, int], Membership], make_signer: Callable[[str], Signer]
) -> Callable[..., Pair]:
    """A learner's and a provider's peer_context on digits; keywords go to the contract's terms."""

    def make(
        *,
        model: nn.Module | None = None,
        gamma: float = 0.3,
        seed: int = 7,
        rounds: int = 3,
        acceptors: tuple[str, ...] = ("hospital",),
        **terms: Any,
    ) -> Pair:
        learner_data, provider_data = _digits(gamma, "learner", seed), _digits(gamma, "provider", seed)
        shape, classes = learner_data.train.input_shape, learner_data.train.classes
        model = model or build("mlp", input_shape=shape, outputs=classes, options={"hidden": 8}, seed=seed)
        defaults = {"learning_rate": 0.01, "batch_size": 32, "iterations": 40, "sampling_period": 5}
        contract = _make_contract(
            seed=seed,
            rounds=rounds,
            acceptors=acceptors,
            models={"model": ModelSpec(name="mlp", signature=Layout.of(model.state_dict()).signature)},
            task=classification(shape, classes),
            terms=AssistedLearningTerms(**(defaults | {"evaluation_batch_size": 32} | terms)),
        )
        clinic = make_member("clinic", "learner", len(learner_data.train))
        hospital = make_member("hospital", "provider", len(provider_data.train))
        stores = MemoryStore(), MemoryStore()
        learner = _peer_context(contract, clinic, hospital, model, learner_data, stores[0], make_signer("clinic"))
        provider = _peer_context(contract, hospital, clinic, model, provider_data, stores[1], make_signer("hospital"))
        return Pair(learner, provider, *stores)

    return make


def _peer_context(
    contract: Contract,
    own: Membership,
    peer: Membership,
    model: nn.Module,
    data: Splits,
    store: MemoryStore,
    signer: Signer,
) -> PeerContext:
    assert isinstance(contract.terms, AssistedLearningTerms)
    task = Supervised(
        copy.deepcopy(model),
        data,
        normalization=((), ()),
        batch_size=contract.terms.batch_size,
        evaluation_batch_size=contract.terms.evaluation_batch_size,
        secret=Secret(own.party.encode(), contract.session),
        device=torch.device("cpu"),
    )
    record_opening(store, contract, own, peer)
    gate = EgressGate(contract, Policy(), store, peer.party)
    receipt_book = ReceiptBook(signer, store, contract, peer)
    blobs, journal, waits = SessionBlobs(), Journal(store, contract.session), Waits(store, contract.session)
    place = SessionContext(contract, own, task, blobs, journal, ignore, waits)
    return PeerContext(place, peer, blobs, gate, receipt_book)

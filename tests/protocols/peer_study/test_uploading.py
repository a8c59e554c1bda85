"""Samples that leave by consent: which may, what is recorded of it, and that there is no way round for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from comity.contract import Contract, Release
from comity.data import Dataset, Splits, load_data
from comity.errors import (
    DataChanged,
    InvalidValue,
    MalformedMessage,
    PeerMessageError,
    PolicyRefusal,
    RoundOutOfOrder,
    UnknownBlob,
)
from comity.ledger.ledger import in_round
from comity.node.sessions.script import parse_script
from comity.privacy.terms import PrivacyTerms
from comity.protocol.registry import protocol
from comity.protocols.peer_study.audits import _models
from comity.protocols.peer_study.client import Client
from comity.protocols.peer_study.server import Server
from comity.protocols.peer_study.terms import PeerStudyTerms
from comity.protocols.peer_study.uploading.lists import list_layout, listed, read_list
from comity.protocols.peer_study.uploading.samples import OpenSamples, input_of, sample_layout, unprotected, with_copies
from comity.session.policy import Policy
from comity.simulation.in_process import simulate
from comity.tensors import Blob
from comity.transport.bindings.in_process import InProcessChannel
from tests.company import Company, company
from tests.protocols.peer_study.sessions import SESSIONS, UPLOADS

TEXT = UPLOADS
PLAIN: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


def in_process(own: Any, other: Any, role: Any) -> InProcessChannel:
    return InProcessChannel(other, role)


def data(*, protected: tuple[int, ...] = (1, 3), count: int = 6) -> Dataset:
    """Rows of their own number; some are protected."""
    marks = torch.zeros(count, dtype=torch.bool)
    marks[[*protected]] = True
    inputs = torch.arange(count, dtype=torch.float32)[:, None].repeat(1, 2)
    return Dataset(inputs, torch.zeros(count, dtype=torch.int64), 1.0, 2, tuple("abcdef"[:count]), marks)


def sent(found: Company, name: str) -> set[str]:
    """Subjects of the samples that a client sent, by its ledger."""
    contract = found.contract
    return {
        each.fact.subject
        for each in found.parties[name].store.entries(contract.session, "server")
        if each.fact.kind == "sample" and each.fact.direction == "sent"
    }


def begun(text: str = TEXT) -> tuple[Company, Client, Any]:
    """A session whose first round is open, its first client, and the client's way to the server."""
    found = company(text)
    found.roles[0].advance()
    port = found.port(in_process)
    return found, Client(found.initiators[0][0], port), port


def test_each_sample_that_leaves_was_released_and_is_in_the_ledger_and_none_is_protected() -> None:
    found = company(TEXT)
    outcomes = found.run(in_process)
    for contexts, outcome in zip(found.initiators, outcomes, strict=True):
        (context,) = contexts
        pool = context.task.pool.pool
        consents: Any = outcome.metrics["consents"]
        records = [each for each in context.journal.records() if each.kind == "uploaded"]
        blobs = {each.fields["sample"]: each.fields["blob"] for each in records}
        assert len(blobs) == outcome.metrics["samples_released"] == 16
        assert [each["sample"] for each in consents if each["is_given"]] == [*blobs]
        assert {each["by"] for each in consents} == {'consent = "standing"'}
        assert sent(found, context.own.party) == {*blobs.values()}
        marks = dict(zip(pool.ids, pool.protected.tolist(), strict=True))
        assert not any(marks[each] for each in blobs)
        assert outcome.metrics["protected_crossed"] == 0


def test_the_server_learns_from_what_came_and_what_is_not_protected_alone_decides_its_model() -> None:
    (first, *_) = simulate(parse_script(TEXT))
    (again, *_) = simulate(parse_script(TEXT))
    assert first.digest == again.digest
    (helped, *_) = simulate(parse_script(SESSIONS["plain"].text))
    assert helped.digest != first.digest


def test_a_protected_sample_that_left_would_be_counted() -> None:
    found, client, _ = begun()
    context = found.initiators[0][0]
    assert client._crossed() == 0
    pool = context.task.pool.pool
    place = int(pool.protected.nonzero().flatten()[0])
    # Around all code that keeps it here.
    leak = OpenSamples(replace(pool, protected=None), PLAIN)
    blob = leak.blob(pool.ids[place], leak.digest(pool.ids[place]))
    context.gate.send_blob(blob, "sample", in_round(1))
    assert client._crossed() == 1
    free = int((~pool.protected).nonzero().flatten()[0])
    context.gate.send_blob(leak.blob(pool.ids[free], leak.digest(pool.ids[free])), "sample", in_round(1))
    assert len(sent(found, "ann")) == 2
    assert client._crossed() == 1


@pytest.mark.parametrize("index", ["b", "d", "1", "-1", "B", "b ", "", "a\0", "zz", 1, -1, True, None, ("a",), [0]])
def test_no_trick_with_an_index_or_an_id_reaches_a_protected_sample(index: Any) -> None:
    samples = OpenSamples(unprotected(data()), PLAIN)
    for attempt in (samples.digest, lambda each: samples.blob(each, "")):
        with pytest.raises((InvalidValue, TypeError)):
            attempt(index)


def test_the_code_that_makes_bytes_has_no_protected_sample_to_make_them_from() -> None:
    pool = data()
    with pytest.raises(InvalidValue, match="not protected"):
        OpenSamples(pool, PLAIN)
    samples = OpenSamples(unprotected(pool), PLAIN)
    values = {float(row[0]) for row in samples._data.inputs}
    assert values == {0.0, 2.0, 4.0, 5.0}
    assert samples._data.inputs.untyped_storage().data_ptr() != pool.inputs.untyped_storage().data_ptr()
    assert len(samples.blobs()) == 4


def test_a_copy_of_a_protected_sample_is_protected_whatever_it_is_called_and_wherever_the_other_is() -> None:
    pool, train = data(), data(protected=(4,))
    pool.inputs[5] = pool.inputs[1]
    assert pool.protected is not None
    marked = with_copies(pool, [train]).protected
    assert marked is not None
    # b and d, f as a copy of b, and e, of which a protected copy is among the samples to train on.
    assert marked.tolist() == [False, True, False, True, True, True]
    found = unprotected(with_copies(pool, [train]))
    assert found.ids == ("a", "c")


def test_copies_of_protected_samples_are_no_candidates_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(config: Any) -> Splits:
        splits = load_data(config)
        pool = splits.find("pool")
        if pool is None or pool.protected is None:
            return splits
        inputs = pool.inputs.clone()
        free, kept = (~pool.protected).nonzero().flatten(), pool.protected.nonzero().flatten()
        inputs[free[:5]] = inputs[kept[:5]]
        return replace(splits, others={"pool": replace(pool, inputs=inputs)})

    monkeypatch.setattr("comity.node.holdings.load_data", doubled)
    found = company(TEXT)
    outcomes = found.run(in_process)
    task = found.initiators[0][0].task
    assert int(task.pool.pool.protected.sum()) == int((~task.pool.pool.protected).sum()) + 10
    assert [each.metrics["protected_crossed"] for each in outcomes] == [0, 0]


def test_a_pool_that_changed_since_consent_is_not_sent() -> None:
    pool = unprotected(data())
    samples = OpenSamples(pool, PLAIN)
    digest = samples.digest("a")
    samples.blob("a", digest)
    # What is protected is put in the place of what was released.
    pool.inputs[0] = data().inputs[1]
    with pytest.raises(DataChanged, match="nothing was sent"):
        samples.blob("a", digest)


def test_a_client_whose_pool_changed_sends_nothing() -> None:
    found, client, port = begun(TEXT.replace(', consent = "standing"', ""))
    context = found.initiators[0][0]
    assert client._uploads is not None
    client._label(1)
    pool = context.task.own_pool
    ids = pool.ids(client._labelled.indices)
    samples, consents = client._uploads._samples, client._uploads.consents
    consents.ask(1, {each: samples.digest(each) for each in ids})
    consents.decide(ids, "zoe", is_given=True)
    samples._data.inputs[:] = pool.pool.inputs[pool.pool.protected][: len(samples._data)]
    with pytest.raises(DataChanged):
        client._make(1)
    assert sent(found, "ann") == set()
    del port


@pytest.mark.parametrize(
    "forge",
    [
        # The policy does not name samples, and the contract says that they leave.
        lambda text: text.replace(', egress = ["contract", "update", "checkpoint", "sample"]', ""),
        lambda text: text.replace(', "sample"]', "]"),
    ],
)
def test_a_contract_is_refused_where_the_nodes_own_policy_does_not_name_samples(forge: Callable[[str], str]) -> None:
    with pytest.raises(PolicyRefusal, match="sample"):
        simulate(parse_script(forge(TEXT)))


def test_a_node_that_guards_its_samples_uploads_none() -> None:
    guarded = TEXT.replace('{ preset = "public" }', '{ preset = "guarded", min_distinct = 2, width_factor = 0 }')
    assert guarded != TEXT
    with pytest.raises(PolicyRefusal, match="guards its samples"):
        simulate(parse_script(guarded))


def test_a_forged_contract_lets_no_sample_out() -> None:
    definition = protocol("peer_study")
    found, _, _ = begun()
    contract = found.contract
    terms = contract.terms
    assert isinstance(terms, PeerStudyTerms)
    assert "sample" in definition.egress_of(terms)
    # Terms of the default mode have no samples, whatever the list of kinds beside them says.
    federated = terms.model_copy(update={"mode": "federated"})
    assert "sample" not in definition.egress_of(federated)
    context = found.initiators[0][0]
    blob = context.task.open_samples.blob
    sample = next(iter(context.task.open_samples._places))
    made = blob(sample, context.task.open_samples.digest(sample))

    def gate(contract: Contract, policy: Policy) -> Any:
        return type(context.gate)(contract, policy, context.gate._ledger, "server")

    allowed = Policy(egress=("contract", "update", "checkpoint", "sample"))
    without = contract.model_copy(update={"egress": ("contract", "update", "checkpoint")})
    for forged, policy in ((contract, Policy()), (without, allowed)):
        with pytest.raises(PolicyRefusal, match="sample"):
            gate(forged, policy).send_blob(made, "sample", in_round(1))
    assert sent(found, "ann") == set()


def test_a_client_of_another_mode_has_nothing_that_sends_samples() -> None:
    found, client, port = begun(SESSIONS["plain"].text)
    assert client._uploads is None
    with pytest.raises(InvalidValue, match="no sample leaves"):
        client.operated("consents.decide", {"samples": ["1"], "annotator": "zoe", "is_given": True})
    context = found.initiators[0][0]
    blob = context.blobs.add(Blob.of(b"x" * 64))
    with pytest.raises(PolicyRefusal):
        port.upload(1, blob.digest)
    assert sent(found, "ann") == set()


def test_a_hostile_server_cannot_ask_for_a_sample() -> None:
    found, client, _ = begun()
    context = found.initiators[0][0]
    client._make(1)
    # What the client keeps, sent or not, is published to nobody: a server that knows digests gets nothing for them.
    pool = context.task.pool.pool
    leak = OpenSamples(replace(pool, protected=None), PLAIN)
    for sample in pool.ids:
        digest = leak.blob(sample, leak.digest(sample)).digest
        with pytest.raises(UnknownBlob):
            context.blobs.published(digest)
    # Nothing that a server says names a sample: its messages have no field for one.
    service = protocol("peer_study").load().service
    assert "sample" not in service.kinds_sent(by_initiator=False)
    # Nor can an operator's call, with ids that a server made up.
    protected = [pool.ids[each] for each in pool.protected.nonzero().flatten().tolist()]
    for sample in (*protected[:3], "0", "no such"):
        with pytest.raises(InvalidValue, match="nobody asks"):
            client.operated("consents.decide", {"samples": [sample], "annotator": "server", "is_given": True})


def test_what_is_selected_is_bounded_by_candidates_even_where_a_journal_was_forged() -> None:
    found, _, port = begun()
    context = found.initiators[0][0]
    pool = context.task.pool
    protected = (pool.pool.protected.nonzero().flatten() + len(pool.known)).tolist()
    context.journal.append("selected", 1, indices=protected[:3], digests={})
    client = Client(context, port)
    with pytest.raises(InvalidValue, match="cannot be released"):
        client._make(1)
    assert sent(found, "ann") == set()


def test_what_was_withheld_stays_and_what_was_decided_is_decided() -> None:
    found, client, port = begun(TEXT.replace(', consent = "standing"', ""))
    assert client._uploads is not None
    client._label(1)
    pool, consents, samples = found.initiators[0][0].task.own_pool, client._uploads.consents, client._uploads._samples
    ids = pool.ids(client._labelled.indices)
    assert consents.ask(1, {each: samples.digest(each) for each in ids}) == 10
    decide = {"annotator": "zoe", "is_given": False, "samples": ids[:4]}
    assert client.operated("consents.decide", decide | {"check_only": True}).fields["left"] == 10
    assert client.operated("consents.decide", decide).fields["left"] == 6
    assert client.operated("consents.show", {}).fields["left"] == ids[4:]
    with pytest.raises(InvalidValue, match="decided on before"):
        client.operated("consents.decide", decide | {"is_given": True})
    client.operated("consents.decide", {"annotator": "bea", "is_given": True, "samples": ids[4:]})
    made = client._make(1)
    assert len(sent(found, "ann")) == 6
    # After a restart it is as it was, and nothing is sent twice.
    again = Client(found.initiators[0][0], port)
    assert again._make(1) == made
    assert [(each["by"], each["is_given"]) for each in again._uploads.consents.history] == [  # type: ignore[union-attr]
        *[("zoe", False)] * 4,
        *[("bea", True)] * 6,
    ]


def test_a_simulation_has_nobody_to_ask() -> None:
    with pytest.raises(InvalidValue, match="needs an operator"):
        simulate(parse_script(TEXT.replace(', consent = "standing"', "")))


def test_a_server_takes_no_list_of_samples_that_never_came_and_no_more_than_was_agreed() -> None:
    found, client, port = begun()
    context, server = found.initiators[0][0], found.roles[0]
    assert isinstance(server, Server)
    task = context.task
    theirs = found.acceptors[0][0].blobs
    made = listed([bytes(range(32))], [3], task.most_samples)
    theirs.add(made)
    with pytest.raises(MalformedMessage, match="never came"):
        server.submit("ann", 1, made.digest, Release(samples=10, kept="round"))
    # Of nothing no teacher can be trained: who has nothing sits the round out.
    nothing = listed([], [], task.most_samples)
    theirs.add(nothing)
    with pytest.raises(MalformedMessage, match="1 to 10"):
        server.submit("ann", 1, nothing.digest, Release(samples=10, kept="round"))
    infinite = task.sample_layout.pack({"input": torch.full((1, 8, 8), torch.inf)})
    for wrong in (Blob.of(b"x" * task.sample_layout.size), infinite):
        theirs.add(wrong)
        with pytest.raises(PeerMessageError):
            server.upload("ann", 1, wrong.digest)
    # The client goes on with the round that is open, whatever is here of its blobs.
    with pytest.raises(RoundOutOfOrder):
        server.submit("ann", 2, bytes(32), Release(samples=10, kept="round"))
    client._make(1)
    assert len(server._samples["ann"]) == 10
    plain = company(SESSIONS["plain"].text)
    plain.roles[0].advance()
    with pytest.raises(MalformedMessage, match="none, by the terms"):
        plain.roles[0].upload("ann", 1, bytes(32))
    del port


def test_an_audit_says_that_no_model_left() -> None:
    found, *_ = begun()
    context: Any = SimpleNamespace(contract=found.contract)
    with pytest.raises(InvalidValue, match="no model to be audited"):
        _models(context)


def test_lists_are_read_as_they_were_written_or_refused() -> None:
    digests = [bytes([number]) * 32 for number in range(3)]
    blob, layout = listed(digests, [0, 1, 1], 5), list_layout(5)
    assert read_list(blob, layout, 2) == [*zip(digests, [0, 1, 1], strict=True)]
    assert blob.size == listed([], [], 5).size
    for samples, labels in (([digests[0]] * 2, [0, 0]), (digests, [0, 2, 1]), (digests, [0, -1, 1])):
        with pytest.raises(MalformedMessage, match="cannot be read"):
            read_list(listed(samples, labels, 5), layout, 2)


def test_a_sample_crosses_as_models_take_it() -> None:
    pool = replace(unprotected(data()), scale=0.5)
    samples = OpenSamples(pool, ((), ()))
    blob = samples.blob("c", samples.digest("c"))
    assert input_of(blob, sample_layout((2,))).tolist() == [1.0, 1.0]


def test_noise_is_for_models_not_for_samples() -> None:
    with pytest.raises(ValueError, match="privacy is for models"):
        PeerStudyTerms(clients=3, mode="upload", privacy=PrivacyTerms(scope="total", epsilon=1.0))


def test_a_list_of_fewer_samples_than_the_policy_wants_is_refused_and_one_of_none_is_sat_out() -> None:
    for released, refused in ((4, True), (0, False)):
        found, client, _ = begun(TEXT.replace(', consent = "standing"', ""))
        assert client._uploads is not None
        client._label(1)
        samples, consents = client._uploads._samples, client._uploads.consents
        ids = found.initiators[0][0].task.own_pool.ids(client._labelled.indices)
        consents.ask(1, {each: samples.digest(each) for each in ids})
        consents.decide(ids[:released], "zoe", is_given=True)
        consents.decide(ids[released:], "zoe", is_given=False)
        if refused:
            with pytest.raises(PolicyRefusal, match="samples"):
                client._contribute(1)
        else:
            client._contribute(1)
            assert found.events["ann"][-1].kind == "round-missed"
        assert len(sent(found, "ann")) == released

"""The server: waits for the clients' updates, settles the round, and pays each client in entries of the aggregate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from comity import faults
from comity.errors import MalformedMessage, PolicyRefusal
from comity.ledger.ledger import in_round
from comity.protocols.gradient_rewards import free_riders
from comity.protocols.gradient_rewards.aggregation import Aggregation, state_to_json
from comity.protocols.gradient_rewards.algorithm import RoundResult
from comity.protocols.gradient_rewards.history import History, signs_to_json
from comity.protocols.gradient_rewards.messages import RewardDetails
from comity.protocols.gradient_rewards.report import of_round, of_rounds
from comity.protocols.gradient_rewards.rewards import SparseUpdate
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.session.contexts import PeerContext, SessionContext
from comity.session.events import Event
from comity.session.gathering.acceptor import GatheringAcceptor
from comity.session.gathering.state import GatheringPlan
from comity.session.outcome import Outcome
from comity.store.store import Record
from comity.tasks.scores import score_of
from comity.tensors import Blob, sparse


class Server(GatheringAcceptor[RewardDetails]):
    """The helping role of many clients; see `GatheringAcceptor`. A record `excluded` says who takes part in no more rounds.

    Args:
        place: This party's context.
        contexts: Its contexts opposite the clients that have joined.
    """

    def __init__(self, place: SessionContext, contexts: Sequence[PeerContext]) -> None:
        if not isinstance(place.contract.terms, GradientRewardsTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="gradient_rewards", received=place.contract.protocol
            )
        self._terms = terms = place.contract.terms
        self._aggregation = Aggregation(place, terms)
        plan = GatheringPlan(
            clients=terms.clients,
            min_clients=terms.min_clients,
            deadline_s=lambda _: terms.round_deadline_s,
            submits="update",
            layout=self._aggregation.layout,
            answers="reward",
        )
        super().__init__(place, contexts, plan)

    def outcome(self) -> Outcome:
        """The server's model, to which every aggregate was added, with what each client contributed and got."""
        excluded = [each for each in self._members.clients if self._members[each].excluded is not None]
        score = score_of(self._session.contract.task.kind).name
        metrics = (
            of_rounds(self._members.clients, self._finished, score)
            | self._history.metrics()
            | {"excluded": [*excluded]}
        )
        return Outcome((self._aggregation.model(),), metrics)

    @property
    def _history(self) -> History:
        return History(self._finished)

    def _began(self, samples: Sequence[int]) -> None:
        self._aggregation.begin(samples)

    def _require_fitting(self, blob: Blob) -> None:
        self._aggregation.require_normalized(self._aggregation.update(blob))

    def _aggregated(self, here: Sequence[str]) -> dict[str, Any]:
        """What the updates of those who took part come to, and what each is paid."""
        began = time.monotonic()
        round, aggregation, members = self._round, self._aggregation, self._members
        submitted = [(members[party].context.blobs, members[party].submitted[round]) for party in here]
        updates = torch.stack([aggregation.update(blobs.get(digest)) for blobs, digest in submitted])
        faults.point("evaluation")
        present = [members.clients.index(party) for party in here]
        signs = aggregation.signs(updates, present, self._last_rewards(here))
        history = self._history
        findings = free_riders.findings(signs, [history.news_of(client) for client in present])
        shares = None if self._terms.free_riders == "warn" else free_riders.shares(signs, findings)
        left = [
            client
            for client, party in enumerate(members.clients)
            if client not in present and (members[party].is_out or history.is_away(client))
        ]
        result = aggregation.aggregate(round, updates, present, left, shares)
        faults.point("selection")
        state = aggregation.model_after(result)
        model = self._session.blobs.add(aggregation.task.layout.pack(state))
        fields = of_round(members.clients, result, self._encode_rewards(here, result))
        fields |= signs_to_json(len(members.clients), present, signs, findings)
        fields["model"] = model.hex
        fields |= {f"test_{name}": value for name, value in aggregation.task.tested(state).items()}
        fields["seconds"] = time.monotonic() - self._opened_at
        fields["server_seconds"] = time.monotonic() - began
        fields["standing"] = state_to_json(result.state)
        return fields

    def _take(self, fields: dict[str, Any]) -> None:
        self._aggregation.keep(bytes.fromhex(fields["model"]), fields["standing"])

    def _details(self, round: int, fields: dict[str, Any], client: int) -> RewardDetails | None:
        if fields["entries"][client] is None:
            return None
        own = {name: fields[name][client] for name in ("contribution", "importance", "fraction", "kept")}
        entries = bytes.fromhex(fields["entries"][client])
        return RewardDetails(round, **own, entries=entries, size=fields["bytes"][client])

    def _shown(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name != "standing"}

    def _last_rewards(self, here: Sequence[str]) -> dict[int, SparseUpdate]:
        """What those who took part were paid last, by place, as far as it is still here."""
        parameters = self._aggregation.layout.tensors["update"].shape[0]
        found = {}
        for place, party in enumerate(here):
            member = self._members[party]
            if member.details is not None and member.details.entries in member.context.blobs:
                encoded = bytes(member.context.blobs.get(member.details.entries).data)
                found[place] = SparseUpdate(*sparse.decode(encoded, parameters), parameters)
        return found

    def _encode_rewards(self, here: Sequence[str], result: RoundResult) -> dict[str, Blob]:
        """Encodes each client's entries, and keeps them until another round is settled."""
        paid = {}
        for party, reward in zip(here, result.rewards, strict=True):
            encoded = Blob.of(sparse.encode(reward.indices, reward.values, reward.size))
            paid[party] = self._members[party].context.blobs.release(encoded, "reward", in_round(self._round))
        return paid

    def _settled(self, round: int) -> None:
        """Decides, once, who takes part in no more rounds, if the terms say so."""
        if self._terms.free_riders != "exclude":
            return
        for client, why in self._history.due_for_exclusion(self._terms.exclude_after).items():
            party = self._members.clients[client]
            if not self._members[party].is_out:
                self._replay(self._session.journal.append("excluded", round, party=party, why=why))
                self._session.observe(Event("client-excluded", round, {"client": party, "why": why}))

    def _replay(self, record: Record) -> None:
        super()._replay(record)
        if record.kind == "excluded":
            fields: Any = record.fields
            member = self._members[fields["party"]]
            member.excluded = PolicyRefusal(
                f"this client was excluded after round {record.round}",
                expected="updates from data of its own",
                received=f"{fields['why']}, in {self._terms.exclude_after} rounds in a row",
                action="ask the server's operator; a new session's terms may have free_riders = \"warn\"",
            )
            self._tell(member)

"""A provider that trains ahead: the same bits, with work that is used where checkpoint 0 is picked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from comity.ledger.ledger import Head, in_round
from comity.ledger.receipts import Signer
from comity.protocols.assisted_learning.algorithm import Loss
from comity.protocols.assisted_learning.messages import Checkpoint, trajectory_digest
from comity.protocols.assisted_learning.party import Party
from comity.protocols.assisted_learning.provider import Provider
from comity.session.events import ignore
from comity.training import Supervised


@dataclass
class Steps:
    """Training steps made so far."""

    made: int = 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    counted, step = Steps(), Supervised._step

    def count(self: Supervised, *arguments: Any) -> None:
        counted.made += 1
        step(self, *arguments)

    monkeypatch.setattr(Supervised, "_step", count)
    return counted


@dataclass(frozen=True)
class Helped:
    """A provider, what a learner offers it, and where both keep their things."""

    pair: Any
    provider: Provider
    offers: list[Checkpoint]
    signer: Signer

    def offer(self, *checkpoints: Checkpoint) -> None:
        for checkpoint in checkpoints:
            self.pair.provider.blobs.add(self.pair.learner.blobs.get(checkpoint.digest))
            self.provider.offer(1, checkpoint)

    def finish(self) -> list[bytes]:
        """Closes the round; the provider's trajectory."""
        contract = self.pair.provider.contract
        subject = trajectory_digest(1, self.offers).hex()
        request = self.signer.state("request", contract.session, contract.hash, in_round(1), subject, Head())
        self.provider.close(1, len(self.offers), request)
        return [each.digest for each in self.provider.results(1)]


@pytest.fixture
def helped(make_pair: Callable[..., Any], make_signer: Callable[[str], Signer]) -> Callable[..., Helped]:
    def begin(*, best: int, ahead: bool) -> Helped:
        pair = make_pair(rounds=2)
        learner, provider = (
            Party(each.task, each.blobs, each.journal, each.contract, each.own, each.peer, works_ahead=ahead)
            for each in (pair.learner, pair.provider)
        )
        start = learner.blobs.add(learner.task.layout.pack(learner.task.initial_state))
        # The learner's word decides, so that it is known which one is picked.
        offers = [
            replace(each, loss=Loss(0.0 if each.index == best else 1e6, each.loss.count))
            for each in learner.train(start.digest, 1)
            if isinstance(each.loss, Loss)
        ]
        return Helped(pair, Provider(provider, pair.provider.receipt_book, ignore), offers, make_signer("clinic"))

    return begin


def idle(provider: Provider) -> None:
    """Has a provider do what it does while nobody asks for anything."""
    while provider.advance():
        pass


@pytest.mark.parametrize("best", [0, 1])
def test_results_are_the_same_and_the_work_counts_where_checkpoint_0_is_picked(
    helped: Callable[..., Helped], steps: Steps, best: int
) -> None:
    plain = helped(best=best, ahead=False)
    plain.offer(*plain.offers)
    steps.made = 0
    expected = plain.finish()
    needed = steps.made

    speculative = helped(best=best, ahead=True)
    steps.made = 0
    speculative.offer(speculative.offers[0])
    idle(speculative.provider)
    assert steps.made == needed
    speculative.offer(*speculative.offers[1:])
    idle(speculative.provider)
    assert speculative.finish() == expected
    assert steps.made == (needed if best == 0 else 2 * needed)


def test_nothing_of_it_is_kept_or_published_before_the_pick(helped: Callable[..., Helped]) -> None:
    speculative = helped(best=0, ahead=True)
    speculative.offer(speculative.offers[0])
    before = speculative.pair.provider.blobs._keeper.digests()
    idle(speculative.provider)
    context = speculative.pair.provider
    assert [each.kind for each in context.journal.records()] == ["received"]
    assert context.blobs._keeper.digests() == before
    assert not context.blobs._published


def test_a_part_that_was_made_ahead_is_gone_on_with(helped: Callable[..., Helped], steps: Steps) -> None:
    plain = helped(best=0, ahead=False)
    plain.offer(*plain.offers)
    expected = plain.finish()
    speculative = helped(best=0, ahead=True)
    speculative.offer(speculative.offers[0])
    steps.made = 0
    while not steps.made:
        assert speculative.provider.advance()
    speculative.offer(*speculative.offers[1:])
    assert speculative.finish() == expected

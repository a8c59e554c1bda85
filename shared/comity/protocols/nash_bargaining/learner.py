"""The learner: sends its model to all providers at once, bargains with their gradients, and learns whom to give power."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from comity import faults
from comity.errors import (
    BlobCorrupted,
    BlobSizeMismatch,
    ComityError,
    MalformedMessage,
    NonFiniteValue,
    ReceiptInvalid,
    SessionFailed,
    TensorMismatch,
    TrainingDiverged,
)
from comity.ledger.ledger import Units, in_round
from comity.protocols.nash_bargaining import report
from comity.protocols.nash_bargaining.extensions import Settings
from comity.protocols.nash_bargaining.messages import Bargaining, Gradient
from comity.protocols.nash_bargaining.powers import bargained_round, initial_powers, updated_powers
from comity.protocols.nash_bargaining.releasing import released
from comity.protocols.nash_bargaining.terms import NashBargainingTerms
from comity.session.attendance import ask_those_present
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.outcome import Outcome
from comity.session.stopping import RoundProgress, ended_early, tests_of
from comity.tasks.scores import score_of
from comity.tensors import Blob, Layout, State

_ROUNDING = 1e-4
"""Share by which a clipped gradient may be longer than the terms say."""
_UNFIT = (MalformedMessage, NonFiniteValue, TensorMismatch, BlobCorrupted, BlobSizeMismatch, ReceiptInvalid)
"""What is wrong with an answer itself; that a provider which was killed has yet to come back is none of it."""
HERE, AWAY, NOTHING, UNFIT = "here", "away", "nothing left to send", "unfit"
"""What a provider was in a round."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """An answer that cannot be used.

    Attributes:
        error: Why not.
    """

    error: ComityError


@dataclass(frozen=True, slots=True)
class Own:
    """What the learner found on its own samples in a round.

    Attributes:
        gradient: As it goes into the bargaining, after the learner's guard.
        main_gradient: On another batch, by which the others are judged; it stays here.
        buffers: The model's buffers after the learner's steps, as far as they leave.
        guard: Digest of what the guard keeps, hexadecimal; None without one.
        held: Share of its rows that the guard kept out of the model; None without one.
    """

    gradient: Tensor
    main_gradient: Tensor
    buffers: State
    guard: str | None
    held: float | None


class Learner:
    """The asking role. Its state follows from its journal: records `finished`, with what a round came to.

    Args:
        contexts: Its places opposite the providers.
        providers: The ports to them, in the same order.
    """

    def __init__(self, contexts: Sequence[PeerContext], providers: Sequence[Bargaining]) -> None:
        own = contexts[0]
        if not isinstance(own.contract.terms, NashBargainingTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="nash_bargaining", received=own.contract.protocol
            )
        self._own = own
        self._terms = own.contract.terms
        self._contexts = contexts
        self._providers = providers
        self._names = [context.peer.party for context in contexts]
        self._task: Any = own.task
        self._score = score_of(own.contract.task.kind).name
        self._wait_s = own.settings.wait_s if isinstance(own.settings, Settings) else Settings().wait_s
        self._told: dict[str, int] = {}
        self._finished: list[dict[str, Any]] = [
            dict(each.fields) for each in own.journal.records() if each.kind == "finished"
        ]
        self._progress: list[RoundProgress] = []

    def work(self) -> Iterator[None]:
        """See `Initiator.work`."""
        context = self._own
        model = context.blobs.add(self._task.layout.pack(self._task.initial_state))
        if self._finished:
            model = context.blobs.get(bytes.fromhex(self._finished[-1]["model"]))
        for round in range(len(self._finished) + 1, context.contract.rounds + 1):
            if self._enough() is not None:
                break
            model = self._round(round, model)
            why = self._enough()
            if why is not None:
                context.observe(ended_early(round, why))
            yield
        for peer, provider in zip(self._contexts, self._providers, strict=True):
            for units in self._arrived(peer):
                provider.acknowledge(units)

    def _enough(self) -> str | None:
        """Why no more rounds follow, before all that were bought."""
        new = self._finished[len(self._progress) :]
        self._progress += [RoundProgress(tests_of(each)) for each in new]
        return self._terms.reason_to_stop(self._own.contract, self._progress)

    def outcome(self) -> Outcome:
        """See `Initiator.outcome`: the model, and who was worth what."""
        digest = self._finished[-1]["model"] if self._finished else None
        if digest is None:
            model = self._task.layout.pack(self._task.initial_state)
        else:
            model = self._own.blobs.get(bytes.fromhex(digest))
        tested: dict[str, Any] = self._task.tested(self._task.layout.view(model.data))
        return Outcome((model,), report.of_rounds(self._names, self._finished, self._score, tested))

    def _round(self, round: int, model: Blob) -> Blob:
        """Makes a step, and what follows from it for the powers."""
        context, began = self._own, time.monotonic()
        found: list[Own] = []
        sent = context.blobs.release(model, "checkpoint", in_round(round))
        questions = [
            (peer, partial(self._asked, round, sent.digest, peer, provider))
            for peer, provider in zip(self._contexts, self._providers, strict=True)
        ]
        answers = ask_those_present(
            in_round(round),
            questions,
            wait_s=self._wait_s,
            meanwhile=lambda: found.append(self._own_gradients(round, sent)),
        )
        (own,) = found
        faults.point("evaluation")
        gradients, states = self._taken(round, sent.digest, answers)
        players = torch.stack([own.gradient, *gradients])
        present = torch.tensor([True, *(each == HERE for each in states)])
        power = self._power()
        came_to = bargained_round(players, power, present, own.main_gradient, self._terms.ridge)
        length = self._terms.step_length(round, context.contract.rounds)
        stepped = context.blobs.add(self._stepped(sent, came_to.direction, length, own.buffers))
        faults.point("selection")
        steps = self._terms.local_steps
        tested = self._task.tested(self._task.layout.view(stepped.data))
        fields: dict[str, Any] = {
            "model": stepped.hex,
            "providers": states,
            "arrived": [isinstance(answers.get(party), Gradient) for party in self._names],
            "power": power.tolist(),
            "alpha": came_to.alpha.tolist(),
            "hypergradient": came_to.hypergradient.tolist(),
            # Of the mean loss: what crosses is the sum over the local steps.
            "help": (length * came_to.help / steps).tolist(),
            "degenerate": came_to.degenerate,
            "present": states.count(HERE),
            "guard": own.guard,
            "rows_held": own.held,
            # What a target may name, and what a stall is known by.
            **{f"test_{name}": value for name, value in tested.items()},
            "seconds": time.monotonic() - began,
        }
        fields["power_after"] = self._power_after(round, fields, length)
        context.journal.append("finished", round, **fields)
        self._finished.append(fields)
        context.blobs.keep({stepped.digest, *([bytes.fromhex(own.guard)] if own.guard else [])})
        context.observe(Event("round-finished", round, fields))
        return stepped

    def _asked(self, round: int, model: bytes, peer: PeerContext, provider: Bargaining) -> Future[Gradient | Unfit]:
        """Asks a provider; what is wrong with its answer is an answer too."""
        answer: Future[Gradient | Unfit] = Future()
        request = peer.receipt_book.sign("request", in_round(round), model)
        try:
            asked = provider.differentiate(round, model, request, peer.receipt_book.untold, self._arrived(peer))
        except _UNFIT as error:
            answer.set_result(Unfit(error))
            return answer

        def done(came: Future[Gradient]) -> None:
            error = came.exception()
            if isinstance(error, _UNFIT):
                answer.set_result(Unfit(error))
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(came.result())

        asked.add_done_callback(done)
        return answer

    def _arrived(self, peer: PeerContext) -> list[Units]:
        """The rounds of which a provider was not told that its gradients are here, in ranges."""
        at = self._names.index(peer.peer.party)
        ranges: list[Units] = []
        for round in range(self._told.get(peer.peer.party, 0) + 1, len(self._finished) + 1):
            if not self._finished[round - 1]["arrived"][at]:
                continue
            if ranges and ranges[-1].first + ranges[-1].count == round:
                ranges[-1] = Units("round", ranges[-1].first, ranges[-1].count + 1)
            else:
                ranges.append(in_round(round))
        return ranges

    def _taken(self, round: int, model: bytes, answers: dict[str, Gradient | Unfit]) -> tuple[list[Tensor], list[str]]:
        """The providers' gradients, zeros where one has none, and what each was in the round."""
        gradients, states = [], []
        for peer in self._contexts:
            answer, taken = answers.get(peer.peer.party), None
            state = AWAY
            if isinstance(answer, Gradient):
                self._told[peer.peer.party] = len(self._finished)
                try:
                    taken = self._accepted(round, model, peer, answer)
                    state = NOTHING if taken is None else HERE
                except _UNFIT as error:
                    answer = Unfit(error)
            if isinstance(answer, Unfit):
                state = self._left_out(round, peer, answer.error)
            gradients.append(torch.zeros(self._parameters) if taken is None else taken)
            states.append(state)
        return gradients, states

    def _accepted(self, round: int, model: bytes, peer: PeerContext, answer: Gradient) -> Tensor | None:
        """A provider's gradient, with its receipt taken; None where it had none.

        Raises:
            PeerMessageError: It does not fit, or the receipt is not for it.
        """
        taken: Tensor | None = None
        if answer.blob is not None:
            blob = self._own.blobs.get(answer.blob)
            self._task.gradient_layout.verify(blob)
            taken = self._task.gradient_layout.view(blob.data)["gradient"]
            length, most = float(taken.double().norm()), self._terms.clip_norm
            if not 0 < length <= most * (1 + _ROUNDING):
                raise MalformedMessage(
                    "the gradient is not clipped as the terms say",
                    expected=f"a length above 0, at most {most:g}",
                    received=f"{length:g}",
                    action="ask the provider's operator what happened",
                )
        peer.receipt_book.accept(answer.receipt, "receipt", in_round(round), model)
        return taken

    def _left_out(self, round: int, peer: PeerContext, error: ComityError) -> str:
        """Goes on without a provider whose answer cannot be used, and owes it nothing for the round.

        Raises:
            SessionFailed: The terms want the session to end.
        """
        party = peer.peer.party
        if self._terms.unfit == "fail":
            raise SessionFailed(
                f"the gradient of {party} in round {round} cannot be used: {error.what}",
                expected=error.expected,
                received=error.received,
                action='ask its operator; with unfit = "leave_out" a session goes on without it',
            ) from error
        if not peer.receipt_book.is_withdrawn(in_round(round)):
            peer.receipt_book.withdraw(in_round(round))
        self._own.observe(Event("gradient-unfit", round, {"peer": party, "why": str(error)}))
        return UNFIT

    def _own_gradients(self, round: int, model: Blob) -> Own:
        """The learner's own gradient, as far as it goes into the model, and the one that stays here."""
        task, context = self._task, self._own
        state = task.layout.view(model.data)
        kept = self._finished[-1]["guard"] if self._finished else None
        guard = task.guard(state, None if kept is None else Layout.unpack(context.blobs.get(bytes.fromhex(kept))))
        faults.point("training")
        local = task.gradient(state, None, self._terms, place=round, guard=guard)
        place = context.contract.rounds + round
        main = task.gradient(state, None, self._terms, place=place).gradients
        # What a normalizing layer measures shows samples as its weights do.
        moved = {name: each - state[name] for name, each in local.buffers.items() if each.is_floating_point()}
        own = released(context, task, {**local.gradients, **moved}, guard, in_round(round), clip_norm=math.inf)
        buffers = {**local.buffers, **{name: state[name] + own.state[name] for name in moved}}
        flat = torch.zeros(self._parameters)
        if own.blob is not None:
            flat = task.gradient_layout.view(context.blobs.get(bytes.fromhex(own.blob)).data)["gradient"].clone()
        main_flat = task.flat(main)
        if not bool(main_flat.isfinite().all()) or not bool(flat.isfinite().all()):
            raise TrainingDiverged(
                f"training diverged in round {round}",
                expected="a finite gradient",
                received="NaN or infinity",
                action="lower the session's learning_rate",
            )
        digest = None
        if guard is not None and (keeps := guard.kept()):
            digest = context.blobs.add(Layout.of(keeps).pack(keeps)).hex
        return Own(flat, main_flat, buffers, digest, own.held)

    def _stepped(self, model: Blob, direction: Tensor, length: float, buffers: State) -> Blob:
        """The model after a step against the bargained update, with the buffers of the learner's own."""
        layout = self._task.layout
        state: State = layout.view(bytearray(model.data))
        at = 0
        for name in self._task.parameters:
            tensor = state[name]
            part = direction[at : at + tensor.numel()].view(tensor.shape)
            tensor.sub_(length * part.to(tensor.dtype))
            at += tensor.numel()
        for name, buffer in buffers.items():
            state[name].copy_(buffer)
        made: Blob = layout.pack(state)
        return made

    def _power(self) -> Tensor:
        """The powers of the round that is next, the learner's first."""
        if self._finished:
            return torch.tensor(self._finished[-1]["power_after"], dtype=torch.float64)
        return initial_powers(len(self._names), self._terms.main_power)

    def _power_after(self, round: int, fields: dict[str, Any], length: float) -> list[float]:
        """The powers of the round that follows one."""
        terms = self._terms
        power = torch.tensor(fields["power"], dtype=torch.float64)
        if not terms.power_every or round % terms.power_every:
            return [float(each) for each in power]
        recent = [*self._finished[round - terms.power_every :], fields]
        found = torch.tensor([each["hypergradient"] for each in recent], dtype=torch.float64)
        there = torch.tensor([[True, *(one == HERE for one in each["providers"])] for each in recent])
        mean = torch.where(there, found, 0.0).sum(0) / there.sum(0)
        rate = terms.power_rate * length / terms.learning_rate
        return [float(each) for each in updated_powers(power, mean, rate, terms.power_floor)]

    @property
    def _parameters(self) -> int:
        size: int = sum(self._task.initial_state[name].numel() for name in self._task.parameters)
        return size

"""The client: trains, submits its normalized update, and adds the reward to the model that it had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from comity import faults
from comity.contract import Json, Release
from comity.errors import MalformedMessage, NonFiniteValue, TrainingDiverged
from comity.ledger.ledger import in_round
from comity.privacy.leak_guard import LeakGuard, Verdict, parallel_rows
from comity.protocols.gradient_rewards.messages import Reward, RewardDetails, Rewarding, update_layout, widened
from comity.protocols.gradient_rewards.rewards import SparseUpdate, normalize_update
from comity.protocols.gradient_rewards.terms import GradientRewardsTerms
from comity.session.contexts import PeerContext
from comity.session.gathering.initiator import GatheringInitiator
from comity.session.outcome import Outcome
from comity.tasks.scores import score_of
from comity.tensors import Blob, Layout, State, sparse
from comity.training import OptimizerSpec, Resume, Snapshot


class ClientTask(Protocol):
    """A client's model and data, as far as this protocol needs them."""

    layout: Layout
    initial_state: State
    parameters: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of training samples."""

    @property
    def is_guarded(self) -> bool:
        """Whether a leak guard decides what of the training is sent."""

    def guard(self, state: State, kept: State | None = None) -> LeakGuard | None:
        """A leak guard of trainings that begin with `state`, or go on from what another kept; None for none."""

    def trajectory(  # noqa: PLR0913
        self,
        state: State,
        spec: OptimizerSpec,
        *,
        iterations: int,
        period: int,
        round: int,
        resume: Resume | None = None,
        guard: LeakGuard | None = None,
    ) -> Iterator[Snapshot]:
        """Trains from `state` and yields the live model at iterations 0, I, 2I, … below T."""

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a model on the client's test samples says, by metric; empty where it has none."""


class Client(GatheringInitiator[RewardDetails]):
    """The asking role; see `GatheringInitiator`.

    Args:
        context: This party's place opposite the server.
        server: The server, in process or over the network.
    """

    def __init__(self, context: PeerContext, server: Rewarding) -> None:
        if not isinstance(context.contract.terms, GradientRewardsTerms):
            raise MalformedMessage(
                "the terms are another protocol's", expected="gradient_rewards", received=context.contract.protocol
            )
        self._terms = context.contract.terms
        self._task: ClientTask = context.task
        self._parameters = sum(self._task.initial_state[name].numel() for name in self._task.parameters)
        self._model = self._task.layout.pack(self._task.initial_state).digest
        self._guard: bytes | None = None
        # What training made of the model's buffers: they never leave, and stay with the model that the reward is added to.
        self._buffers: bytes | None = None
        self._held: float | None = None
        super().__init__(context, server, "update")

    def work(self) -> Iterator[None]:
        """Takes part in what is left of the rounds; yields while others have their turn."""
        self._context.blobs.add(self._task.layout.pack(self._task.initial_state))
        return super().work()

    def outcome(self) -> Outcome:
        """The client's model with its own view of the session."""
        score, tested = score_of(self._context.contract.task.kind).name, self._task.tested(self._view(self._model))
        metrics: dict[str, Json] = {
            "score": score,
            "own_score": tested.get(score),
            **({"tested": {"own_score": tested}} if tested else {}),
            "rounds": [each["round"] for each in self._rounds],
            "own_score_by_round": [each.get(f"test_{score}") for each in self._rounds],
            "contribution_by_round": [each["contribution"] for each in self._rounds],
            "importance_by_round": [each["importance"] for each in self._rounds],
            "fraction_by_round": [each["fraction"] for each in self._rounds],
            "kept_by_round": [each["kept"] for each in self._rounds],
            "rows_held_by_round": [each["rows_held"] for each in self._rounds],
            "bytes_by_round": [each["bytes"] for each in self._rounds],
        }
        return Outcome((self._context.blobs.get(self._model),), metrics)

    def _release(self) -> Release:
        return Release(samples=self._task.samples)

    def _make(self, round: int) -> dict[str, Json]:
        """Trains, and makes durable what is sent of it, what is held, and that it may be sent.

        Raises:
            TrainingDiverged: The update is NaN or infinite.
            ReleaseRefused: It would give samples away.
        """
        context, units = self._context, in_round(round)
        if (verdicts := context.place.verdicts) is not None and self._task.is_guarded:
            # What the server pays moves the model: it can be made to read samples off.
            verdicts.warn("update", units, Verdict(alike=parallel_rows(self._view(self._model))))
        difference, buffers, guard = self._train(round)
        verdict = None
        if guard is not None:
            released = guard.release_update(difference)
            difference, verdict = dict(released.state), released.verdict
            if verdict.is_refused and context.place.verdicts is not None:
                context.place.verdicts.refuse("update", units, f"round {round}", verdict)
            verdict.require()
        flat = torch.cat([difference[name].flatten() for name in self._task.parameters]).float()
        update = None
        # A difference that is zero without a guard has no direction: that is for `normalize_update` to say.
        if verdict is None or bool(flat.any()):
            blob = update_layout(self._parameters).pack({"update": self._normalized(flat, round)})
            update = context.blobs.release(blob, "update", units).digest
            if verdict is not None and context.place.verdicts is not None:
                context.place.verdicts.record("update", units, update, verdict)
        kept = {} if guard is None else guard.kept()
        return {
            "submitted": None if update is None else update.hex(),
            "guard": context.blobs.add(Layout.of(kept).pack(kept)).hex if kept else None,
            "buffers": context.blobs.add(Layout.of(buffers).pack(buffers)).hex if buffers else None,
            "held": verdict.held_rows / verdict.rows if verdict is not None and verdict.rows else None,
        }

    def _note(self, fields: Mapping[str, Any]) -> None:
        self._guard = None if fields["guard"] is None else bytes.fromhex(fields["guard"])
        self._buffers = None if fields["buffers"] is None else bytes.fromhex(fields["buffers"])
        self._held = fields["held"]

    def _train(self, round: int) -> tuple[dict[str, Tensor], dict[str, Tensor], LeakGuard | None]:
        """The difference that a round of local training makes, by parameter, the buffers after it, and what observed the training."""
        before = {name: tensor.clone() for name, tensor in self._view(self._model).items()}
        kept = None if self._guard is None else Layout.unpack(self._context.blobs.get(self._guard))
        guard = self._task.guard(before, kept)
        iterations = self._terms.epochs * -(-self._task.samples // self._terms.batch_size)
        after: State = before
        for sample in self._task.trajectory(
            before,
            self._terms.optimizer_spec(round),
            iterations=iterations + 1,
            period=iterations,
            round=round,
            guard=guard,
        ):
            faults.point("training")
            after = sample.state
        difference = {name: widened(after[name].cpu()) - widened(before[name]) for name in self._task.parameters}
        return difference, {name: each.cpu() for name, each in after.items() if name not in difference}, guard

    def _normalized(self, difference: Float[Tensor, " parameters"], round: int) -> Float[Tensor, " parameters"]:
        """A difference as it is sent, eq. (1).

        Raises:
            TrainingDiverged: It is NaN or infinite.
        """
        try:
            return normalize_update(difference, self._terms.length)
        except NonFiniteValue as error:
            raise TrainingDiverged(
                f"training diverged in round {round}",
                expected="finite weights",
                received="NaN or infinity",
                action="lower the session's learning_rate",
            ) from error

    def _collected(self, answer: Reward, blob: Blob) -> dict[str, Json]:
        """Adds the reward to the model from before the round."""
        context, terms = self._context, answer.details
        indices, values = sparse.decode(blob.data, self._parameters)
        if len(indices) != terms.kept:
            raise MalformedMessage(
                f"the reward of round {terms.round} is not what the server states",
                expected=f"{terms.kept} entries",
                received=len(indices),
                action="ask the server's operator what happened",
            )
        faults.point("evaluation")
        added = SparseUpdate(indices, values, self._parameters).dense()
        state = self._task.layout.view(bytearray(context.blobs.get(self._model).data))
        at = 0
        for name in self._task.parameters:
            tensor = state[name]
            tensor.add_(added[at : at + tensor.numel()].view(tensor.shape))
            at += tensor.numel()
        if self._buffers is not None:
            for name, buffer in Layout.unpack(context.blobs.get(self._buffers)).items():
                state[name].copy_(buffer)
        model = context.blobs.add(self._task.layout.pack(state)).digest
        faults.point("selection")
        return {
            "contribution": terms.contribution,
            "importance": terms.importance,
            "fraction": terms.fraction,
            "kept": terms.kept,
            "bytes": terms.size,
            "rows_held": self._held,
            **{f"test_{name}": value for name, value in self._task.tested(self._view(model)).items()},
            "model": model.hex(),
        }

    def _finished(self, fields: Mapping[str, Any]) -> None:
        self._model = bytes.fromhex(fields["model"])
        self._buffers = None

    def _kept(self) -> set[bytes]:
        return {self._model, *([] if self._guard is None else [self._guard])}

    def _view(self, digest: bytes) -> State:
        return self._task.layout.view(self._context.blobs.get(digest).data)

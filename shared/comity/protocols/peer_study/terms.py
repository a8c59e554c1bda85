"""What a session of peer study agrees on."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from comity.privacy.terms import PrivacyTerms
from comity.protocols.peer_study.choices import Difference, Form, Mode, Selection
from comity.session.stopping import StoppingTerms
from comity.training.terms import OptimizerSpec, TrainingTerms

_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class PeerStudyTerms(TrainingTerms, StoppingTerms):
    """The protocol's part of a contract.

    A labelling step is one selection, and the averages that follow it until the next.

    Attributes:
        learning_rate: Of AdamW, of teacher and students; it restarts in every round.
        weight_decay: Of AdamW.
        steps: Local steps of the teacher in a round, and of each of the students' two losses.
        clients: Clients with which the first round opens.
        min_clients: Fewest that are averaged when a round's deadline has passed. Of two, each can compute the other's model
            from the average: every node's `policy.min_clients` (3) refuses less.
        round_deadline_s: How long a round stays open for those who are late, in seconds.
        label_deadline_s: The same of a round that begins with labels: people need days.
        initial: Labels that each client asks for first, of samples by chance; beside those that its training samples have.
        budget: Labels that each client asks for at once after that.
        rounds_per_step: Averages between two selections.
        restart: Whether teacher and students start afresh after each selection, as in the paper, or go on.
        selection: What chooses the samples.
        peers: P, students of each client.
        alpha: The teacher's weight in eq. (2), 0 to 1.
        temperature: Tau in eq. (2).
        margin: Xi in eq. (5); 0 leaves Out-of-Class Peer Study out.
        form: How eq. (5) is written.
        pool_batch_size: Samples of the pool in an Out-of-Class step.
        annotators: How many people label each sample, where people do.
        when_they_differ: What counts when they do not say the same: `leave_out`, the sample is left out; `first`, what was
            handed in first; `majority`, what most said, and while there is no such label one more is asked.
        mode: `federated`: each client trains the teacher on what it has labelled, models leave, no sample does. `upload`, the
            paper's main setting: labelled samples leave, each by a consent of its own, and the server trains. A node takes
            part in that only where its `policy.egress` names `sample`, which no default does.
        privacy: The noise of every client's training of the teacher; None for none.
        stop_when_stalled: See `StoppingTerms`, which the server decides by.
        target: See there.
        target_metric: See there.
    """

    batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 16
    learning_rate: Annotated[float, Field(gt=0, le=1e3)] = 5e-3
    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 1e-2
    steps: _Count = 60
    clients: Annotated[int, Field(ge=2, le=10_000)]
    min_clients: Annotated[int, Field(ge=1, le=10_000)] = 3
    round_deadline_s: Annotated[float, Field(gt=0, le=1e8)] = 600.0
    label_deadline_s: Annotated[float, Field(gt=0, le=1e8)] = 604_800.0
    initial: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    budget: _Count = 10
    rounds_per_step: _Count = 4
    restart: bool = True
    selection: Selection = "peer_study"
    peers: Annotated[int, Field(ge=1, le=100)] = 2
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 4.0
    margin: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    form: Form = "printed"
    pool_batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 64
    annotators: Annotated[int, Field(ge=1, le=100)] = 1
    when_they_differ: Difference = "leave_out"
    mode: Mode = "federated"
    privacy: PrivacyTerms | None = None

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if self.min_clients > self.clients:
            raise ValueError(f"min_clients is at most clients, which is {self.clients}")
        if self.uploads and self.privacy is not None:
            raise ValueError('privacy is for models that clients train: leave it out, or write mode = "federated"')
        return self

    @property
    def uploads(self) -> bool:
        """Whether samples leave."""
        return self.mode == "upload"

    @property
    def without(self) -> frozenset[str]:
        """See `Terms.without`: no sample leaves but where the terms say so."""
        return frozenset() if self.uploads else frozenset({"sample"})

    @property
    def participants(self) -> int:
        """How many clients join before the first round."""
        return self.clients

    @property
    def min_participants(self) -> int:
        """Fewest clients whose models are mixed in one average."""
        return self.min_clients

    @property
    def optimizer_spec(self) -> OptimizerSpec:
        """AdamW, of the teacher."""
        return OptimizerSpec("adam", self.learning_rate, weight_decay=self.weight_decay)

    def step_of(self, round: int) -> int:
        """The labelling step, from 0, that a round, from 1, belongs to."""
        return (round - 1) // self.rounds_per_step

    def begins_step(self, round: int) -> bool:
        """Whether a round begins with labels."""
        return (round - 1) % self.rounds_per_step == 0

    def deadline_s(self, round: int) -> float:
        """How long a round stays open, in seconds."""
        return self.label_deadline_s if round and self.begins_step(round) else self.round_deadline_s

    def labels_by(self, step: int) -> int:
        """Labels that a client has asked for by a labelling step."""
        return self.initial + step * self.budget

    def asked_in(self, step: int) -> int:
        """Labels that a client asks for in a labelling step."""
        return self.budget if step else self.initial

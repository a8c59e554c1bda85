"""What a session of learning to help agrees on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from comity.contract import Terms
from comity.protocols.learning_to_help.choices import Form, RejectsOn, Training

_Epochs = Annotated[int, Field(ge=1, le=10_000)]
_Decay = Annotated[float, Field(ge=0, le=1e6)]


class LearningToHelpTerms(Terms):
    """The protocol's part of a contract.

    Attributes:
        c_e: Cost of asking, in [0, 1).
        c_1: Cost of a wrong answer from the server beside it, 0 or more; a wrong answer of the client's model costs 1.
        form: How the rejector's loss is written.
        features: Name of the layer of the client's model whose input is the features that queries carry.
        reject_rate: q, the greatest expected share of inputs that are asked about, 0 to 1; 1 for what the rejector says.
        requests: Requests that are bought: an input that is answered is one.
        batch_size: Samples a step, of every training.
        learning_rate: Of AdamW at the first step; it falls to 0 by a cosine.
        server_epochs: Passes over the server's samples, for its classifier.
        server_weight_decay: Of AdamW, likewise; for the client's own training too.
        rejector_epochs: Passes over the server's samples, for the rejector.
        rejector_weight_decay: Of AdamW, likewise.
        folds: Parts into which the server's samples fall, to tell whether its classifier is right on what it did not see.
        local_epochs: Passes of the client over its own samples, where the contract names no weights that its model begins with.
        training: Who trains the rejector, and on what: see `choices.Training`.
        copy_every: S, steps of the classifier's training between two copies, where the client trains the rejector with them.
        rejects_on: What the rejector goes by.
        legacy: What `[models]` of the parties' own configurations calls a model that answers in place of `local`, of which only
            features are made then; empty for none. It stays where it is: the client has it, and where the server trains the
            rejector, the server has it as well.
        serves: Whether the session stays on after its rounds, for what the client's applications ask, until its operator ends it.
    """

    c_e: Annotated[float, Field(ge=0, lt=1)] = 0.25
    c_1: Annotated[float, Field(ge=0, le=1e6)] = 1.25
    form: Form = "shifted"
    features: Annotated[str, Field(min_length=1, max_length=200)]
    reject_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    requests: Annotated[int, Field(ge=1, lt=2**32)] = 1000
    batch_size: Annotated[int, Field(ge=1, lt=2**32)] = 32
    learning_rate: Annotated[float, Field(gt=0, le=1e3)] = 3e-3
    server_epochs: _Epochs = 30
    server_weight_decay: _Decay = 1e-4
    rejector_epochs: _Epochs = 40
    rejector_weight_decay: _Decay = 1e-2
    folds: Annotated[int, Field(ge=2, le=100)] = 3
    local_epochs: _Epochs = 30
    training: Training = "server"
    copy_every: Annotated[int, Field(ge=1, lt=2**32)] = 100
    rejects_on: RejectsOn = "features"
    legacy: Annotated[str, Field(max_length=200)] = ""
    serves: bool = False

    @property
    def without(self) -> frozenset[str]:
        """See `Terms.without`: where the server says what it thinks of samples, no model of its own leaves."""
        return frozenset({"checkpoint"}) if self.training == "predictions" else frozenset()

    def needs_legacy(self, *, is_client: bool) -> bool:
        """Whether a party has to have the model that answers in place of the contract's: who trains the rejector goes by it."""
        return bool(self.legacy) and (is_client or self.training == "server")

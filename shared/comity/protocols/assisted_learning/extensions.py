"""What a node decides for itself in assisted learning: `[protocols.assisted-learning]` of its configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from comity.contract import Option
from comity.privacy.settings import OptimizerName


class OwnModel(BaseModel):
    """A model that this party trains instead of the one that crosses; the two teach each other (AssistKD).

    Attributes:
        name: Name of a model factory.
        options: Options of the factory.
        optimizer: Optimiser of the distillations.
        learning_rate: Its learning rate.
        temperature: t of the distillations, above 0.
        alpha: α, the weight of the teacher's answers beside the labels.
        to_shared: Iterations in which a checkpoint of the own model teaches the shared one.
        to_own_epochs: Passes over the data in which a picked model teaches the own one.
        begins_with: What the own model of a round begins with: the own model as the last round left it, or its initial
            weights.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    options: dict[str, Option] = {}
    optimizer: OptimizerName = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 1e-3
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    to_shared: Annotated[int, Field(ge=1)] = 10
    to_own_epochs: Annotated[int, Field(ge=1)] = 60
    begins_with: Literal["last", "initial"] = "last"


class Settings(BaseModel):
    """A node's own settings of assisted learning.

    Attributes:
        speculative: Whether, as a provider that has nothing to evaluate, it trains from the first model that came, in case
            that it is picked; else the work is dropped. No result changes.
        own_model: A model of its own, trained in the place of the contract's, which crosses; left out for none.
    """

    model_config = ConfigDict(extra="forbid")

    speculative: bool = False
    own_model: OwnModel | None = None

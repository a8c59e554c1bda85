"""A model that a session left, ready to use: it takes samples as data sets store them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from comity.contract import TaskSpec
from comity.errors import InvalidValue, UnknownModel
from comity.models import OwnModels
from comity.models.weights import begin_with, read_weights
from comity.node.artifacts.description import Description, KeptModel, read_description
from comity.tasks import ModelSize, Outputs, build_model, predictions
from comity.tasks.objective import titles
from comity.training.network import input_dtype, widened

Module = nn.Module | Callable[[], nn.Module]
"""A module to put weights into, or what makes one."""


class SessionModel(nn.Module):
    """A model with what is done to every input before it sees it.

    Args:
        network: The model itself.
        description: What is known of it.
        model: Which of the models of the session it is.

    Attributes:
        network: The model itself: a plain module, which takes prepared inputs.
        description: What its folder says of it.
        model: Which of the session's models it is.
    """

    def __init__(self, network: nn.Module, description: Description, model: KeptModel) -> None:
        super().__init__()
        self.network = network
        self.description = description
        self.model = model
        self._dtype = input_dtype(network)
        inputs = description.task.inputs
        # Only what takes the task's inputs is given them as they are stored: one that goes by another's features is not.
        stored = model.inputs == inputs.shape
        self._scale = (inputs.scale or 1.0) if stored else 1.0
        self._normalizes = stored and bool(inputs.preprocessing.mean)
        like = (1, -1, *[1] * (len(inputs.shape) - 1))
        for name, values in (("mean", inputs.preprocessing.mean), ("std", inputs.preprocessing.std)):
            self.register_buffer(f"_{name}", torch.tensor(values).view(like) if values else torch.empty(0), False)
        self.eval()

    @property
    def task(self) -> TaskSpec:
        """What it is for."""
        return self.description.task

    @property
    def classes(self) -> tuple[str, ...]:
        """What the numbers of its answer are called: classes, labels, targets or actions, head by head."""
        return tuple(title for head in self.task.heads for title in titles(head))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Stored inputs `[batch, *shape]`, uint8 or float32, as the model takes them."""
        prepared = inputs.to(torch.float32)
        if self._scale != 1.0:
            prepared = prepared * self._scale
        if self._normalizes:
            prepared = (prepared - self.get_buffer("_mean")) / self.get_buffer("_std")
        return prepared if self._dtype is None else prepared.to(self._dtype)

    def forward(self, inputs: Tensor) -> Outputs:
        """What the model gives for stored inputs: scores, or a dict of them by head."""
        answer = self.network(self.prepare(inputs))
        return widened(answer, by_head=len(self.task.heads) > 1)

    @torch.inference_mode()
    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """What the model says of stored inputs, as somebody uses it: classes and probabilities, numbers in their units."""
        return predictions(self.task, self(inputs))


def load_model(
    folder: Path | str,
    module: Module | None = None,
    *,
    name: str | None = None,
    models: OwnModels | None = None,
) -> SessionModel:
    """A model that a session left, ready to use.

    Args:
        folder: The session's folder, which has `model.json`; or one file of a model in it.
        module: A module to put the weights into, or what makes one, for models that only somebody's own code makes. A
            description is never followed to code.
        name: Which model, where the session left several.
        models: What `[models]` of a node calls models of its own, and where each is; another way to name that code.

    Raises:
        MissingFile: The folder has no description, or lacks the model's file.
        InvalidValue: There are several models and none is named, or the module has other tensors.
        UnknownModel: Its name is unknown here, and no module was given.
    """
    description, place = read_description(Path(folder))
    kept = description.find(name)
    tensors = read_weights(place / kept.file)
    network = built(description, kept, models or {}) if module is None else _made(module)
    return SessionModel(put_into(network, kept, tensors), description, kept)


def put_into(network: nn.Module, model: KeptModel, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Gives a module the weights of a session's model.

    Raises:
        InvalidValue: It has other tensors.
    """
    try:
        begin_with(network, tensors)
    except InvalidValue as error:
        raise InvalidValue(
            f"the module has other tensors than the session's model {model.spec.name!r}",
            expected=f"{error.what.rpartition(': ')[2]}: {error.received}",
            received=error.expected,
            action="give it the class that the session was run with, with the same options",
        ) from error
    return network


def _made(module: Module) -> nn.Module:
    return module if isinstance(module, nn.Module) else module()


def built(description: Description, kept: KeptModel, own: OwnModels) -> nn.Module:
    """A module for one of a session's models, with the weights that the seed decides.

    Raises:
        UnknownModel: Its name is unknown here.
    """
    size = ModelSize(kept.inputs, kept.outputs)
    try:
        return build_model(kept.spec, description.task, description.seed, own, size=size)
    except UnknownModel as error:
        raise UnknownModel(
            f"the session's model {kept.spec.name!r} is somebody's own code",
            expected="a module to put its weights into, or where its factory is",
            received="neither",
            action="comity.load_model(folder, Net()); on the command line --node, whose node.toml has it in [models]",
        ) from error

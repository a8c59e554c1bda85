"""Gradients in which no sample counts for more than noise hides."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from comity.errors import InvalidValue
from comity.privacy.mechanism import Mechanism
from comity.privacy.opacus import load

Losses = Callable[[], Float[Tensor, " batch"]]
"""Makes the forward pass of a batch through the model, and returns the loss of each sample. Its
inputs require gradients, as Opacus's hooks expect."""


def require_private(model: nn.Module) -> None:
    """Checks that a sample's gradient is its own in every layer of a model.

    Raises:
        InvalidValue: A layer mixes the samples of a batch, or Opacus cannot take its gradient apart.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise InvalidValue(
                f"Layer {name or 'of the model'} mixes the samples of a batch, which differential privacy forbids",
                expected="GroupNorm or no normalization",
                received=type(module).__name__,
                action="use GroupNorm: resnet18-cifar has it with the option norm = 'group'",
            )
    errors = load("opacus.validators").ModuleValidator.validate(model, strict=False)
    if errors:
        raise InvalidValue(f"Differential privacy does not go with this model: {errors[0]}", action="use another model")


class PrivateGradients:
    """Clips the gradient of each sample and adds noise to their sum: DP-SGD (Abadi et al. 2016), by Opacus.

    The noise is added to the sum of the clipped gradients and the result is divided by the batch size that is expected;
    noise of that size on their mean would drown it.

    Args:
        model: The model; from here on its parameters carry per-sample gradients. Names in its state dict stay the same.
        mechanism: Clipping and noise.
        batch_size: Samples that a step is expected to see.

    Raises:
        InvalidValue: See `require_private`.
    """

    def __init__(self, model: nn.Module, mechanism: Mechanism, batch_size: float) -> None:
        require_private(model)
        self._mechanism = mechanism
        self._batch_size = batch_size
        self._optimizer = load("opacus.optimizers").DPOptimizer
        # Hooks on the model's own layers: the model is called as before.
        try:
            self._wrapped = load("opacus.grad_sample").GradSampleModule(model, loss_reduction="sum")
        except NotImplementedError as error:
            raise InvalidValue(
                "Differential privacy does not go with this model",
                expected="layers whose gradients Opacus can take apart by sample",
                received=" ".join(str(_first(error)).split())[:300],
                action="use another model",
            ) from error
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._model = model

    def compute(self, optimizer: torch.optim.Optimizer, losses: Losses | None, seed: int) -> None:
        """Sets the parameters' gradients; the step itself is the caller's.

        Args:
            optimizer: The optimiser of the model's parameters.
            losses: The batch; None for an empty one, which is noise alone.
            seed: Decides the noise: the same seed, the same noise.

        Raises:
            InvalidValue: The forward pass changes a buffer of the model.
        """
        device = self._parameters[0].device
        private = self._optimizer(
            optimizer,
            noise_multiplier=self._mechanism.noise_multiplier,
            max_grad_norm=self._mechanism.clipping_norm,
            expected_batch_size=self._batch_size,
            generator=torch.Generator(device=device).manual_seed(seed),
        )
        private.zero_grad(set_to_none=True)
        if losses is None:
            for parameter in self._parameters:
                parameter.grad_sample = torch.zeros(0, *parameter.shape, device=device)  # type: ignore[attr-defined]
        else:
            before = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
            found = losses()
            found.sum().backward()
            for parameter in self._parameters:
                # What the forward pass leaves out has no gradient, of any sample.
                if getattr(parameter, "grad_sample", None) is None:
                    parameter.grad_sample = parameter.new_zeros(len(found), *parameter.shape)  # type: ignore[attr-defined]
            self._require_unmoved(before)
        private.pre_step()

    def _require_unmoved(self, before: Mapping[str, Tensor]) -> None:
        """Checks that the forward pass left no trace of the samples beside the gradients: nothing would cover it.

        Raises:
            InvalidValue: It did.
        """
        for name, buffer in self._model.named_buffers():
            if not torch.equal(buffer, before[name]):
                raise InvalidValue(
                    f"The buffer {name} changes in a forward pass, and differential privacy would not cover that",
                    expected="buffers that stay as they are in training",
                    received="one that is made of the inputs",
                    action="use a model without it",
                )


def _first(error: BaseException) -> object:
    """What Opacus says first; it raises a list."""
    said = error.args[0] if error.args else error
    return said[0] if isinstance(said, list) and said else said

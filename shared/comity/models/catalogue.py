"""What models may be called. Light: reading a configuration imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

TORCHVISION = "torchvision:"

OWN_TARGET = r"^(python:[A-Za-z_][\w.]*:[A-Za-z_][\w.]*|(hf|onnx|torchscript):.+|timm:[\w./-]+|torchvision:\w+)$"
"""Where a node's configuration may say that a model is."""

BUILT_IN: Mapping[str, str] = {
    "alexnet-cifar": "comity.models.alexnet_cifar:alexnet_cifar",
    "cnn-cifar": "comity.models.cnn_cifar:cnn_cifar",
    "cnn-kd": "comity.models.cnn_kd:cnn_kd",
    "cnn-mnist": "comity.models.cnn_mnist:cnn_mnist",
    "cnn-small": "comity.models.cnn_small:cnn_small",
    "fcn": "comity.models.fcn:fcn",
    "lenet5": "comity.models.lenet5:lenet5",
    "mlp": "comity.models.mlp:mlp",
    "policy-mlp": "comity.models.policy_mlp:policy_mlp",
    "resnet14": "comity.models.resnet_cifar:resnet14",
    "resnet18-cifar": "comity.models.resnet18_cifar:resnet18_cifar",
    "resnet8": "comity.models.resnet_cifar:resnet8",
    "text-cnn": "comity.models.text_cnn:text_cnn",
}
_ENTRY_POINTS = "comity.models"


def names() -> tuple[str, ...]:
    """Every name that `build` knows here, sorted. What a package installs cannot replace a built-in name."""
    return tuple(sorted(targets()))


def targets() -> dict[str, str]:
    """Where each factory is, as `module:function`."""
    return {point.name: point.value for point in entry_points(group=_ENTRY_POINTS)} | dict(BUILT_IN)

"""Models that no factory of ours builds: a node's own code, and those of other libraries.

What a node's configuration calls a model stands there as `python:package.module:factory`, `hf:folder` (a folder with the
`config.json` of transformers), `timm:name` or `torchvision:name`. Nothing is downloaded: weights are initial ones.
`torchscript:file` and `onnx:file` are models of other programs, with the weights that they have; they answer, and are not
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from torch import nn

from comity.contract import Option
from comity.errors import InvalidValue, UnknownModel
from comity.models.files import onnx_model, torchscript_model

Factory = Callable[..., nn.Module]
"""Called as `factory(input_shape, outputs, **options)`; what it takes by keyword is the model's options."""

OwnModels = Mapping[str, str | Factory]
"""What a party calls models of its own, and where each is; a party in this process may have the factory itself."""

_OWN_ACTION = "correct [models] in node.toml"
_PYTHON_ACTION = f"{_OWN_ACTION}, install the package, or start the node with the module's folder in PYTHONPATH"
_SEVERAL_OUTPUTS = ("googlenet", "inception_v3")
"""Classifiers whose answer in training is no tensor."""


def own_factory(name: str, target: str | Factory) -> Factory:
    """The factory behind a name of the party's own.

    Raises:
        UnknownModel: It cannot be imported, or the library that has it is not installed.
        InvalidValue: The folder of a `hf:` model is not there.
    """
    if not isinstance(target, str):
        return target
    source, _, rest = target.partition(":")
    match source:
        case "python":
            return imported(name, rest, _PYTHON_ACTION)
        case "timm":
            return _timm_factory(rest)
        case "hf":
            return _hf_factory(Path(rest))
        case "onnx" | "torchscript":
            _require_file(target, Path(rest))
            return partial(onnx_model if source == "onnx" else torchscript_model, Path(rest))
        case _:
            return torchvision_factory(rest)


def imported(name: str, place: str, action: str) -> Factory:
    """What stands at `module:function`.

    Raises:
        UnknownModel: Nothing does, or nothing that can be called.
    """
    try:
        factory: Factory = resolve_name(place)
    except (Exception, SystemExit) as error:
        raise UnknownModel(f"Model {name!r} cannot be imported from {place}: {error}", action=action) from error
    if not callable(factory):
        raise UnknownModel(
            f"Model {name!r} at {place}",
            expected="a callable (input_shape, outputs, **options)",
            received=type(factory).__name__,
            action=action,
        )
    return factory


def torchvision_factory(name: str) -> Factory:
    """A classifier of torchvision's, or a model of masks. It takes no options: some of them would claim any amount of memory.

    Raises:
        UnknownModel: torchvision has none of that name.
    """
    from torchvision import models  # noqa: PLC0415 - it takes its time, and few need it

    of_masks = models.list_models(module=models.segmentation)
    known = [each for each in models.list_models(module=models) if each not in _SEVERAL_OUTPUTS]
    if name not in known and name not in of_masks:
        raise UnknownModel(
            "torchvision has no such model of classes or masks",
            expected="one of those that torchvision.models lists, whose answer is one tensor, or of torchvision.models.segmentation",
            received=repr(name[:200]),
            action="correct the name after torchvision:",
        )

    def build(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        _require_image(f"torchvision:{name}", input_shape, 3)
        if name in of_masks:
            return _Masks(models.get_model(name, weights=None, weights_backbone=None, num_classes=outputs))
        model: nn.Module = models.get_model(name, weights=None, num_classes=outputs)
        return model

    return build


class _Masks(nn.Module):
    """A model of torchvision's that says of each pixel what it is; its answer is the scores alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        """`[batch, 3, height, width]` to `[batch, outputs, height, width]`."""
        return self.model(inputs)["out"]


def _timm_factory(name: str) -> Factory:
    timm: Any = _library("timm", f"timm:{name}")
    if not timm.is_model(name):
        raise UnknownModel(
            "timm has no such model", expected="one that timm.list_models() names", received=name, action=_OWN_ACTION
        )

    def build(input_shape: tuple[int, ...], outputs: int, **options: Option) -> nn.Module:
        _require_image(f"timm:{name}", input_shape)
        if "pretrained" in options or "checkpoint_path" in options:
            raise InvalidValue(
                f"Model 'timm:{name}': no weights are fetched",
                expected="options of the network",
                received=", ".join(options),
                action="correct the model's options",
            )
        model: nn.Module = timm.create_model(
            name, pretrained=False, in_chans=input_shape[0], num_classes=outputs, **options
        )
        return model

    return build


def _hf_factory(folder: Path) -> Factory:
    transformers: Any = _library("transformers", f"hf:{folder}")
    if not (folder / "config.json").is_file():
        raise InvalidValue(
            f"Model 'hf:{folder}' cannot be used",
            expected="a folder with config.json",
            received="none there",
            action=_OWN_ACTION,
        )

    def build(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        is_image = len(input_shape) == 3
        # Code that comes with a configuration is not run.
        config = transformers.AutoConfig.from_pretrained(str(folder), num_labels=outputs, trust_remote_code=False)
        kind = "AutoModelForImageClassification" if is_image else "AutoModelForSequenceClassification"
        model = getattr(transformers, kind).from_config(config, trust_remote_code=False)
        return _Scores(model)

    return build


class _Scores(nn.Module):
    """A classifier of transformers', whose answer is the scores alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        """`[batch, ...]` to `[batch, outputs]`; word numbers come as floats and count from 0, the filling."""
        return self.model(inputs.long() if inputs.ndim == 2 else inputs).logits


def _require_file(model: str, path: Path) -> None:
    if not path.is_file():
        raise UnknownModel(
            f"Model {model!r} cannot be read", expected="a file", received="none there", action=_OWN_ACTION
        )


def _library(module: str, model: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UnknownModel(
            f"Model {model!r} needs the library {module}, which is not installed", action=f"pip install {module}"
        ) from error


def _require_image(model: str, input_shape: tuple[int, ...], channels: int | None = None) -> None:
    if len(input_shape) != 3 or channels not in {None, input_shape[0]}:
        raise InvalidValue(
            f"Model {model!r} cannot take this input",
            expected=f"[{channels or 'channels'}, height, width]",
            received=list(input_shape),
            action="choose a model that fits the data",
        )

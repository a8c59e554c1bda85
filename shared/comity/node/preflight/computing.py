"""Protocols and device: what takes torch to look at."""

from __future__ import annotations

from collections.abc import Iterator

from comity.errors import ComityError
from comity.node.preflight.context import Context
from comity.node.preflight.rows import NotChecked, Row
from comity.protocol.registry import protocols, unusable
from comity.training import choose_device


def check_protocols(context: Context) -> Iterator[Row]:
    """Every protocol's package can be used, with what needs torch, grpc and protobuf."""
    del context
    broken = unusable(implementations=True)
    for each in broken:
        yield Row(f"protocol {each.name}", "warning", " ".join(each.what.split()), f"repair or remove {each.package}")
    left = [each.name for each in protocols() if each.name not in {one.name for one in broken}]
    yield Row("protocols", "passed" if left else "failed", ", ".join(left) or "none that can be used")


def check_device(context: Context) -> Iterator[Row]:
    """The configured device is one of this machine."""
    import torch  # noqa: PLC0415 - the name alone

    device = choose_device(context.config.device)
    name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    yield Row("device", "passed", f"{context.config.device!r} is {device}{name}, torch {torch.__version__}")


def require_device(context: Context) -> None:
    """Stops a check that needs the device where it cannot be used."""
    try:
        choose_device(context.config.device)
    except ComityError as error:
        raise NotChecked("the device cannot be used") from error

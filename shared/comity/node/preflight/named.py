"""What a configuration calls by names of its own: models and weights that scripts, and other parties' contracts, may name."""

from __future__ import annotations

from collections.abc import Iterator

from comity.errors import ComityError
from comity.models.own import own_factory
from comity.models.weights import named_tensors
from comity.node.preflight.context import Context
from comity.node.preflight.rows import Row, of_error


def check_models(context: Context) -> Iterator[Row]:
    """What `[models]` names is there and can be imported; it is built where a session says of which inputs."""
    for name, target in context.config.models.items():
        try:
            own_factory(name, target)
        except ComityError as error:
            yield of_error(f"model {name}", error)
        else:
            yield Row(f"model {name}", "passed", target)


def check_weights(context: Context) -> Iterator[Row]:
    """The files of `[weights]` are there and hold tensors."""
    for name, path in context.config.weights.items():
        try:
            tensors = named_tensors(path)
        except ComityError as error:
            yield of_error(f"weights {name}", error)
        else:
            yield Row(f"weights {name}", "passed", f"{path}: {len(tensors)} tensors")

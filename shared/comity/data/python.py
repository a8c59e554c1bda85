"""A party's own function that gives samples, or a package's; nothing that a peer sends is ever looked up so."""

from __future__ import annotations

import inspect
import sys
from pkgutil import resolve_name
from typing import Any

from comity.data.dataset import Dataset, Splits
from comity.data.objects import splits_of
from comity.data.sources import Request
from comity.data.targets import require_from_nought
from comity.errors import InvalidValue, MissingFile


def load(request: Request) -> Splits:
    """What `<module>:<name>` gives: a torch `Dataset`, `(inputs, labels)`, a dict of those by split, or `Splits`.

    It is called with the node's folder of data as `root`, with `seed`, and, of a source that a package adds, with what
    follows its name as `location`, where it takes them. Modules are looked for where Python looks, and in that folder.

    Raises:
        MissingFile: There is no such module, or nothing of that name in it.
        InvalidValue: It fails, or gives something else.
    """
    return made(request.location, request)


def made(target: str, request: Request) -> Splits:
    """What a function gives; see `load`.

    Args:
        target: `<module>:<name>`.
        request: What it is asked for.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise InvalidValue("This function cannot be used", expected="python:<module>:<name>", received=repr(target))
    root = str((request.root or request.path.parent).expanduser().absolute())
    sys.path.append(root)
    try:
        make: Any = resolve_name(target)
    except Exception as error:
        raise MissingFile(
            f"{target} cannot be imported",
            expected=f"a function {name} in a module {module}, where Python looks or in {root}",
            received=f"{type(error).__name__}: {error}",
            action="correct `source`, install the package, or set `root`",
        ) from error
    finally:
        sys.path.remove(root)
    try:
        found = make(**_taken(make, request)) if callable(make) and not _is_data(make) else make
    except Exception as error:
        raise InvalidValue(
            f"{target} gives no samples",
            expected="a torch Dataset, (inputs, labels), or a dict of these by split",
            received=f"{type(error).__name__}: {error}",
            action="correct the function",
        ) from error
    splits = splits_of(found, target, in_memory=request.in_memory)
    require_from_nought(splits, target, "give a torch Dataset whose `classes` lists all their names")
    return splits


def _taken(make: Any, request: Request) -> dict[str, Any]:
    """What a function takes of what it can be told."""
    known = {"root": request.root, "seed": request.seed, "location": request.location}
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in known.items() if name in parameters}


def _is_data(value: Any) -> bool:
    return isinstance(value, Splits | Dataset) or (hasattr(value, "__getitem__") and hasattr(value, "__len__"))

"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: object, known: Iterable[str]) -> str | None:
    """The known name that a word is nearly, whatever its case, and with hyphens for underscores; None where none is near."""
    names = {_plain(each): each for each in known}
    found = difflib.get_close_matches(_plain(str(word)[:100]), names, n=1)
    return names[found[0]] if found else None


def did_you_mean(word: object, known: Iterable[str], otherwise: str, *, spelled: str = "{}") -> str:
    """What to do about a name that is none: take the one that is near, or something else.

    Args:
        word: What was given.
        known: The names that there are.
        otherwise: What to do where none is near.
        spelled: How the name stands in the question.
    """
    found = near(word, known)
    return f"did you mean {spelled.format(found)}?" if found is not None else otherwise


def _plain(word: str) -> str:
    return word.casefold().replace("_", "-")

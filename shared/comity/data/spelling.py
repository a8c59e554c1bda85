"""How names are spelled: those that look the same are the same, whatever system wrote them."""

from __future__ import annotations

import unicodedata

_UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
"""Characters that take no place."""


def spelled(name: str) -> str:
    """A name with its accents put together, as most systems write them and some file systems do not, and plain spaces.

    What cannot be seen in it goes.
    """
    return " ".join(unicodedata.normalize("NFC", name.translate(_UNSEEN)).split())


def spelled_in(value: object) -> object:
    """Names in tables and lists, keys among them, likewise; anything else as it is."""
    if isinstance(value, str):
        return spelled(value)
    if isinstance(value, dict):
        return {spelled_in(key): spelled_in(each) for key, each in value.items()}
    return [spelled_in(each) for each in value] if isinstance(value, list | tuple) else value

"""Inputs that are kept: what once came out as another error, took memory, or is known to be hard."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def folder_of(decoder: str) -> Path:
    """The folder of a decoder's inputs; it need not be there."""
    return FOLDER / decoder.replace(" ", "-")


def kept(decoder: str) -> list[Path]:
    """The inputs of a decoder."""
    return sorted(folder_of(decoder).glob("*"))

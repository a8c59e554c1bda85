"""Seeds and generators: every random draw is keyed by what it is for, and none moves the process's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from blake3 import blake3

_global_generator = RLock()


def derive(key: str | bytes | int, *parts: str | int) -> int:
    """The seed for one purpose, drawn from a key that serves many.

    Each of key and parts is hashed behind its type and its length, so that no two different calls hash the same bytes:
    `derive(1, "2")`, `derive(1, 2)` and `derive("12")` have nothing to do with each other.

    Args:
        key: A session's seed, or a node's secret.
        *parts: The purpose, for example `"data order", session, round`.

    Returns:
        An integer in [0, 2**63), the same on every platform.

    Raises:
        TypeError: The key or a part is of another type.
    """
    digest = blake3()
    for value in (key, *parts):
        tag, payload = _encode(value)
        digest.update(tag + len(payload).to_bytes(8, "little") + payload)
    return int.from_bytes(digest.digest(length=8), "little") >> 1


def generator(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU.

    Args:
        seed: In [-2**63, 2**64), as torch takes it; `derive` gives one.
    """
    return torch.Generator(device="cpu").manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds torch's global generator for the body alone, for code that takes none (a layer's constructor, a forward pass).

    One thread at a time is let in, and on the way out the generator is as it was. Devices other than the CPU and the one
    that is named are neither seeded nor restored. A draw that another thread makes from the global generator without
    coming through here is not kept out.

    Args:
        seed: In [-2**63, 2**64), as torch takes it; `derive` gives one.
        device: Where the body draws, beside the CPU.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with _global_generator, torch.random.fork_rng(devices=cuda):
        # Not torch.manual_seed: it seeds every CUDA device too, which nothing here would set back.
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


def _encode(value: str | bytes | int) -> tuple[bytes, bytes]:
    """A type tag of one byte, and the value as bytes."""
    match value:
        case bytes():
            return b"b", value
        case str():
            return b"s", value.encode()
        case int():
            # One bit more than the magnitude needs: the sign.
            return b"i", int(value).to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    raise TypeError(f"a seed is derived from str, bytes and int, not from {type(value).__name__}")

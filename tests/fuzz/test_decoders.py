"""No bytes break a decoder: what does not fit is an error of the tree, and takes no more memory than what fits."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity.errors import ComityError
from comity.protocol.registry import protocols
from tests.fuzz.corpus import FOLDER, folder_of, kept
from tests.fuzz.decoder import MEBIBYTE, Decoder
from tests.fuzz.decoders import decoders
from tests.fuzz.mutations import mutated

NAMES = sorted(decoders())


def tried(decoder: Decoder, data: bytes) -> bool:
    """Whether a decoder takes an input. Whatever comes out beside errors of the tree fails the test."""
    try:
        decoder.decode(data)
    except ComityError as error:
        refused = str(error)
    else:
        return True
    assert len(refused) < 4000, "an error is a line that somebody reads"
    return False


@contextmanager
def bounded(decoder: Decoder) -> Iterator[None]:
    """Fails where more memory is taken than the decoder may."""
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < decoder.memory, f"{(peak - before) / MEBIBYTE:.1f} MiB"


def test_every_registered_protocol_is_fuzzed() -> None:
    for definition in protocols():
        name = definition.name
        whole = {f"{name} {part}" for part in ("contract", "terms", "proposal", "draft", "agreement")}
        calls = {
            f"{name} {method.path.rpartition('/')[2]} request" for method in definition.load().service.methods.values()
        }
        assert whole | calls <= set(NAMES)


def test_every_input_that_is_kept_belongs_to_a_decoder() -> None:
    assert {each.name for each in FOLDER.iterdir()} <= {folder_of(name).name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_tried_begins_at_something_that_fits(name: str) -> None:
    decoder = decoders()[name]
    taken = [tried(decoder, each) for each in decoder.seeds]
    assert any(taken)


@pytest.mark.parametrize("name", [name for name in NAMES if kept(name)])
def test_what_was_once_found_is_refused(name: str) -> None:
    decoder = decoders()[name]
    for path in kept(name):
        with bounded(decoder):
            assert not tried(decoder, path.read_bytes()), path.name


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=settings().max_examples // 2
)
def test_no_bytes_break_a_decoder(name: str, data: st.DataObject) -> None:
    decoder = decoders()[name]
    drawn = data.draw(mutated(decoder.seeds))
    with bounded(decoder):
        tried(decoder, drawn)

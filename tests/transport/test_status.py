"""Every error crosses as itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import (
    ComityError,
    DeadlineExceeded,
    PeerUnreachable,
    RemoteFailure,
    StorageError,
    TooManyCalls,
    TrainingDiverged,
    UnsupportedProtocol,
    tree,
)
from comity.session.egress_rules import ERROR_PARTS
from comity.transport.status import STATUS, from_rpc_error, to_status

# Surrogates are no text that a message can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
some = st.none() | texts

Behavior = Callable[[grpc.ServicerContext], None]


@pytest.fixture
def failure(
    echo: Callable[..., Any], method: Callable[[grpc.Channel], Any]
) -> Iterator[Callable[[Behavior], grpc.RpcError]]:
    """Makes a call whose handler does something that ends it, and gives what grpc raises."""
    behaviors: list[Behavior] = []

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        behaviors[-1](context)
        return request

    with grpc.insecure_channel(echo(behave).address) as channel:

        def fail(behavior: Behavior) -> grpc.RpcError:
            behaviors.append(behavior)
            with pytest.raises(grpc.RpcError) as caught:
                method(channel)(b"", timeout=10)
            return caught.value

        yield fail


def raising(error: Exception) -> Behavior:
    def behave(context: grpc.ServicerContext) -> None:
        raise error

    return behave


TOLD = [each for each in tree() if not issubclass(each, StorageError)]
"""Errors that a peer is told as they are; of what a node keeps, and where, it learns nothing."""


def parts(error: ComityError) -> tuple[object, ...]:
    return type(error), error.what, error.expected, error.received, error.action


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == set(tree())
    assert grpc.StatusCode.OK not in STATUS.values()


def test_every_error_crosses_a_call_as_itself(failure: Callable[[Behavior], grpc.RpcError]) -> None:
    for kind in TOLD:
        error = kind("it – broke\n", expected="ä\tb", received="100 %", action="mend it")
        failed = failure(raising(error))
        assert cast(grpc.Call, failed).code() is STATUS[kind]
        assert parts(from_rpc_error(failed)) == parts(error)


def test_what_an_error_says_crosses_unchanged(failure: Callable[[Behavior], grpc.RpcError]) -> None:
    @given(st.sampled_from(TOLD), texts, some, some, st.just("") | texts)
    def crosses(kind: type[ComityError], what: str, expected: str | None, received: str | None, action: str) -> None:
        error = kind(what, expected=expected, received=received, action=action)
        assert parts(from_rpc_error(failure(raising(error)))) == parts(error)

    crosses()


def test_an_error_about_something_huge_crosses_cut_short(failure: Callable[[Behavior], grpc.RpcError]) -> None:
    # gRPC takes 8 KiB of metadata; what a peer sent wrong may be longer, and nobody wants to read it.
    error = UnsupportedProtocol("no such protocol here", expected="é" * 20_000, received="y" * 100_000, action="z")
    got = from_rpc_error(failure(raising(error)))
    assert type(got) is UnsupportedProtocol
    assert (got.what, got.action) == (error.what, error.action)
    assert len(str(got)) < 4000


def test_an_unexpected_failure_tells_the_peer_nothing(failure: Callable[[Behavior], grpc.RpcError]) -> None:
    failed = failure(raising(RuntimeError("secret path")))
    error = from_rpc_error(failed)
    assert type(error) is RemoteFailure
    assert "secret" not in f"{error} {cast(grpc.Call, failed).details()}"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, PeerUnreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, RemoteFailure),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, RemoteFailure),
        (grpc.StatusCode.CANCELLED, PeerUnreachable),
    ],
)
def test_statuses_without_details_are_told_apart(
    failure: Callable[[Behavior], grpc.RpcError], code: grpc.StatusCode, kind: type[ComityError]
) -> None:
    def behave(context: grpc.ServicerContext) -> None:
        context.set_code(code)
        context.set_details("only this")

    error = from_rpc_error(failure(behave))
    assert type(error) is kind
    assert "only this" in str(error)


def test_nothing_of_an_error_crosses_but_what_has_a_rule() -> None:
    error = TrainingDiverged("it diverged", expected="finite", received="NaN" * 1000, action="lower it")
    error.sample = b"something else"  # type: ignore[attr-defined]
    status = to_status(error)
    (detail,) = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"]).details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert set(info.metadata) == set(ERROR_PARTS)
    assert all(len(each) <= 500 for each in info.metadata.values())


def test_a_caller_who_asks_too_much_is_told_when_to_try_again() -> None:
    status = to_status(TooManyCalls("too many calls"))
    details = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"]).details
    hint = error_details_pb2.RetryInfo()
    assert [each.Is(hint.DESCRIPTOR) and each.Unpack(hint) for each in details] == [False, True]
    assert 0 < hint.retry_delay.ToMilliseconds() < 5000

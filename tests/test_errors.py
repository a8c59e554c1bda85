"""The error tree is the one that its docstring draws, and every error prints as one line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity import errors
from comity.errors import ComityError, PolicyRefusal, RefusedError, TransportError, UsageError, tree

texts = st.none() | st.text()


def drawn(error: type[ComityError], indent: str = "") -> list[str]:
    lines = []
    children = error.__subclasses__()
    for child in children:
        last = child is children[-1]
        lines.append(f"{indent}{'└' if last else '├'}── {child.__name__}")
        lines += drawn(child, indent + ("    " if last else "│   "))
    return lines


def test_the_docstring_draws_exactly_the_tree() -> None:
    block = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    names = [re.match(r"[ │├└─]*\w+", line).group().removeprefix("    ") for line in block]  # type: ignore[union-attr]
    assert names == ["ComityError", *drawn(ComityError)]


def test_tree_holds_every_class_once() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ComityError)]
    assert sorted(map(repr, tree())) == sorted(map(repr, classes))


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_exit_codes_say_who_has_to_act(error: type[ComityError]) -> None:
    code = 2 if issubclass(error, UsageError) else 3 if issubclass(error, RefusedError) else 1
    assert error("something").exit_code == code


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "it broke"),
        ({"expected": 1}, "it broke: expected 1"),
        ({"received": 0}, "it broke: received 0"),
        ({"expected": "a", "received": "b"}, "it broke: expected a, received b"),
        ({"expected": "a", "received": "b", "action": "mend it"}, "it broke: expected a, received b; mend it"),
        ({"action": "mend\n  it"}, "it broke; mend it"),
    ],
)
def test_messages_say_what_was_expected_what_came_and_what_to_do(fields: dict[str, str], line: str) -> None:
    assert str(ComityError("it broke", **fields)) == line  # type: ignore[arg-type]


@given(st.text(), texts, texts, st.text())
def test_every_message_is_one_printable_line(
    what: str, expected: str | None, received: str | None, action: str
) -> None:
    # Parts of it come from peers: they must not break a log's lines, or drive the operator's terminal.
    line = str(ComityError(what, expected=expected, received=received, action=action))
    assert len(line.splitlines()) <= 1
    assert line.isprintable()


def test_reasons_are_the_names_as_they_cross_the_wire() -> None:
    assert PolicyRefusal.reason() == "POLICY_REFUSAL"
    assert TransportError.reason() == "TRANSPORT_ERROR"
    assert len({error.reason() for error in tree()}) == len(tree())

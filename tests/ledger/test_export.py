"""A ledger as a file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import InvalidValue
from comity.ledger.comparison import compare
from comity.ledger.exported import Exported, export, load
from comity.ledger.ledger import Chain, Fact
from comity.ledger.verification import verify
from tests.ledger.books import (
    NAME,
    ROUNDS,
    Party,
    Whole,
    book,
    make_party,
    play,
    rechained,
)


class TestExport:
    def test_comes_back(self, parties: tuple[Party, Party]) -> None:
        for is_whole in (True, False):
            chains = book(parties[0])
            assert load(export(chains, is_whole=is_whole)) == Exported(chains, is_whole)

    def test_is_one_line_an_entry(self, whole: Whole) -> None:
        strange = Fact("ended", "s-1", peer="hospital", body={"text": "a\nb\u2028c\x0bd\x85"})
        lines, head = rechained([replace(whole.lines[0], fact=strange)])
        text = export([Chain(NAME, head, lines)], is_whole=False)
        assert text.count("\n") == 3
        assert load(text) == Exported([Chain(NAME, head, lines)], is_whole=False)

    def test_shows_one_session_alone(self) -> None:
        acceptor = make_party("hospital")
        acceptor.store.record(Fact("ended", "secret", peer="secret-party"))
        initiator = make_party("clinic")
        play(initiator, acceptor)
        text = export(acceptor.store.chains("s-1"), is_whole=False)
        assert "secret" not in text
        theirs = load(text)
        assert verify(theirs.chains, is_whole=theirs.is_whole).charged == {"round": ROUNDS}
        assert compare(book(initiator), theirs.chains) == []

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", "no exported ledger|line 1"),
            ("[]", "line 1 "),
            ("{", "line 1 "),
            ('{"comity_ledger":1,"length":0,"hash":""}', "no exported ledger"),
            ('{"comity_ledger":2,"whole":1}', "whole of type bool"),
            ('{"comity_ledger":2}', "the keys"),
            ('{"comity_ledger":2,"whole":true}\n{"index":0}', "line 2 .*a chain's name and head"),
            ('{"comity_ledger":2,"whole":true}\n{"chain":{},"length":0,"hash":""}', "line 2 .*the keys session, peer"),
            ('{"comity_ledger":2,"whole":true}\n{"chain":[],"length":0,"hash":""}', "line 2 .*chain of type dict"),
            (
                '{"comity_ledger":2,"whole":true}\n{"chain":{"session":"","peer":""},"length":"0","hash":""}',
                "line 2 .*length of type int",
            ),
            ("[" * 100_000, "line 1 "),
        ],
    )
    def test_something_else_is_refused(self, line: str, message: str) -> None:
        with pytest.raises(InvalidValue, match=message):
            load(line)

    def test_half_a_character_is_refused(self, whole: Whole) -> None:
        text = export([Chain(NAME, whole.head, whole.lines)], is_whole=False)
        first, name, *entries = text.splitlines()
        for half in (r"\ud800", r"\uDFFF"):
            broken = entries[0].replace('"body":{', f'"body":{{"{half}x":1,', 1)
            with pytest.raises(InvalidValue, match="line 3 .*text, received half a character"):
                load("\n".join([first, name, broken, *entries[1:]]))
        # Two halves are one.
        assert load("\n".join([first, name, entries[0].replace('"body":{', r'"body":{"\ud83d\ude00":1,', 1)]))

    def test_an_entry_of_another_shape_is_refused(self, whole: Whole) -> None:
        file, head, first, *_ = export([Chain(NAME, whole.head, whole.lines)], is_whole=False).splitlines()
        for name in json.loads(first):
            for value in (True, 1.5, [], "text", 3, None, {}):
                changed = json.loads(first)
                if type(value) is type(changed[name]) or (value is None and name in {"direction", "kind"}):
                    continue
                if name in {"direction", "kind"} and isinstance(value, str):
                    continue
                changed[name] = value
                with pytest.raises(InvalidValue, match=f"line 3 .*{name} of type"):
                    load(f"{file}\n{head}\n{json.dumps(changed)}\n")
            del changed[name]
            with pytest.raises(InvalidValue, match=r"line 3 .*the keys"):
                load(f"{file}\n{head}\n{json.dumps(changed)}\n")

    @pytest.mark.parametrize("number", [-1, 2**63, 9 * 10**4299])
    def test_a_number_that_no_ledger_has_is_refused(self, whole: Whole, number: int) -> None:
        file, head, first, *_ = export([Chain(NAME, whole.head, whole.lines)], is_whole=False).splitlines()
        for name in ("index", "first", "count", "size"):
            changed = json.dumps(json.loads(first) | {name: number})
            with pytest.raises(InvalidValue, match=f"line 3 .*{name} from 0 to"):
                load(f"{file}\n{head}\n{changed}\n")

    @given(text=st.text(max_size=200))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            load(text)

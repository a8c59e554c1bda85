"""What somebody does to the file of a ledger with an editor for SQLite is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from comity.errors import LedgerBroken
from comity.ledger.verification import verify
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from tests.ledger.books import (
    NAME,
    STATEMENT_VALUES,
    Whole,
    bad_entry,
    make_party,
    place_of,
    play,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initiator's ledger in a file."""
    folder = tmp_path_factory.mktemp("whole")
    store = SqlStore(store_url(folder), durable=False)
    play(make_party("clinic", store), make_party("hospital"), ends=True)
    verify(store.chains())
    store.close()
    return folder / "comity.db"


class TestDatabaseFile:
    """By somebody with an editor for SQLite."""

    @pytest.fixture
    def edit(self, database: Path, tmp_path: Path) -> Callable[..., int]:
        """Does something to a copy of the file, and returns the entry that `verify` names then."""
        file = tmp_path / "comity.db"

        def edit(*statements: str) -> int:
            shutil.copy(database, file)
            with closing(sqlite3.connect(file)) as connection, connection:
                for statement in statements:
                    connection.execute(statement)
            with closing(SqlStore(store_url(tmp_path), read_only=True)) as store:
                index, chain = bad_entry(store.chains())
                assert chain == str(NAME)
                return index

        return edit

    @pytest.mark.parametrize(
        "change",
        [
            "matter = 'other'",
            "session = session || 'x'",
            "unit = 'request'",
            "first = first + 1",
            "first = 'text'",
            "count = count + 1",
            "peer = 'somebody'",
            "direction = 'inward'",
            "kind = 'update'",
            "subject = subject || '0'",
            "size = size + 1",
            "size = 1.5",
            "body = '{\"more\":1}'",
            "body = 'nothing'",
            "body = '[1]'",
            "body = '{\"a\":NaN}'",
            "body = x'ff'",
            "time = '2020-01-01T00:00:00.000000+00:00'",
            "previous = hash",
            "hash = previous",
        ],
    )
    def test_an_edited_column(self, edit: Callable[..., int], change: str) -> None:
        for index in (0, 1, 9, 20):
            assert edit(f"UPDATE ledger SET {change} WHERE chain = 1 AND position = {index}") == index

    def test_a_deleted_tail(self, edit: Callable[..., int]) -> None:
        assert edit("DELETE FROM ledger WHERE chain = 1 AND position >= 20") == 20
        assert edit("DELETE FROM ledger WHERE chain = 1") == 0

    def test_deleted_in_the_middle(self, edit: Callable[..., int]) -> None:
        assert edit("DELETE FROM ledger WHERE chain = 1 AND position = 7") == 7
        moved = "UPDATE ledger SET position = position - 1 WHERE chain = 1 AND position > 7"
        assert edit("DELETE FROM ledger WHERE chain = 1 AND position = 7", moved) == 7

    def test_two_swapped(self, edit: Callable[..., int]) -> None:
        swap = [
            f"UPDATE ledger SET position = {new} WHERE chain = 1 AND position = {old}"
            for old, new in ((5, -1), (9, 5), (-1, 9))
        ]
        assert edit(*swap) == 5

    def test_an_edited_receipt(self, edit: Callable[..., int], whole: Whole) -> None:
        index = place_of(whole.lines, kind="receipt", round=2, direction="received")
        for name in STATEMENT_VALUES:
            change = f"json_set(body, '$.statement.{name}', '0')"
            assert edit(f"UPDATE ledger SET body = {change} WHERE chain = 1 AND position = {index}") == index
        assert (
            edit(f"UPDATE ledger SET body = json_set(body, '$.signature', '00') WHERE chain = 1 AND position = {index}")
            == index
        )

    def test_an_edited_head(self, edit: Callable[..., int], whole: Whole) -> None:
        # It has an end, too.
        length = len(whole.lines) + 1
        assert edit("UPDATE chains SET length = length + 1 WHERE chain = 1") == length
        assert edit("UPDATE chains SET length = 3 WHERE chain = 1") == 3
        assert edit("UPDATE chains SET hash = 'f' WHERE chain = 1") == length - 1

    @pytest.mark.parametrize(
        "changes",
        [
            ["DELETE FROM chains WHERE chain = 1"],
            ["DELETE FROM chains WHERE chain = 1", "DELETE FROM ledger WHERE chain = 1"],
        ],
    )
    def test_a_removed_session(self, edit: Callable[..., int], changes: list[str], tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="chain of session s-1 with hospital is missing"):
            edit(*changes)
        # A node does not go on with it either.
        with pytest.raises(LedgerBroken, match="chain of session s-1 with hospital is missing"):
            SqlStore(store_url(tmp_path))

    def test_a_missing_own_chain(self, edit: Callable[..., int]) -> None:
        with pytest.raises(LedgerBroken, match=r"head .* is missing"):
            edit("DELETE FROM chains WHERE chain = 0")

    def test_a_node_does_not_go_on_with_it(self, database: Path, tmp_path: Path) -> None:
        for change in (
            "DELETE FROM ledger WHERE chain = 1 AND position > 5",
            "UPDATE chains SET length = 3 WHERE chain = 1",
            "UPDATE chains SET length = 0 WHERE chain = 1",
            "UPDATE chains SET hash = 'f' WHERE chain = 0",
            "DELETE FROM chains WHERE chain = 0",
            "DELETE FROM chains",
        ):
            shutil.copy(database, tmp_path / "comity.db")
            with closing(sqlite3.connect(tmp_path / "comity.db")) as connection, connection:
                connection.execute(change)
            with pytest.raises(LedgerBroken, match=r"does not end where it should|head .* missing"):
                SqlStore(store_url(tmp_path))

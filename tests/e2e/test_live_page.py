"""The page of a node, in a real browser: what it shows of sessions, live, and that nothing in it is a peer's to do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import expect

from comity import faults
from comity.errors import AddressInUse
from comity.node.config import NodeConfig
from comity.node.daemon import Node
from comity.node.sessions.kept import contract_of
from comity.node.sessions.overview import past_events
from comity.protocol.curves import metrics_so_far
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from tests.browser import WIDTHS, Opened, opened
from tests.cases import PROTOCOLS, plain
from tests.e2e.network import DEADLINE_S, Network, network

WEB = {"enabled": True, "listen": "127.0.0.1:0"}
SHOWN_MS = 30_000
HALF = 9
"""Commits of all parties together when the session is about half over."""


@contextmanager
def looked_at(found: Network, party: str, **how: object) -> Iterator[Opened]:
    with opened(found.clients[party].status().page, **how) as seen:  # type: ignore[arg-type]
        yield seen


def text(seen: Opened, selector: str) -> str:
    return seen.page.inner_text(selector)


def shows(seen: Opened, selector: str, said: str) -> None:
    """Waits until a part of the page says something: what is fetched comes after the page."""
    expect(seen.page.locator(selector)).to_contain_text(said, timeout=SHOWN_MS, use_inner_text=True)


@pytest.fixture
def hooks() -> Iterator[None]:
    yield
    faults.install(None)


@pytest.mark.usefixtures("hooks")
def test_a_session_is_shown_while_it_goes_on_and_again_after_a_reload() -> None:
    script, gone, commits = plain("teacher_votes").script, threading.Event(), count(1)
    with (
        TemporaryDirectory(prefix="e2e-") as name,
        ThreadPoolExecutor(1) as pool,
        network(script, Path(name), web=WEB) as found,
    ):

        def away(point: str) -> None:
            if point == "commit" and next(commits) == HALF:
                for each in found.proxies:
                    each.is_away = True
                    each.cut()
                gone.set()

        faults.install(away)
        with looked_at(found, "clinic") as seen:
            page = seen.page
            shows(seen, "#party", "clinic")
            expect(page.locator("#no-sessions")).to_be_visible(timeout=SHOWN_MS)
            running = pool.submit(found.run)
            assert gone.wait(DEADLINE_S)
            page.wait_for_selector("#session-rows .state-waiting", timeout=SHOWN_MS)
            page.wait_for_selector("#session-rounds figure", timeout=SHOWN_MS)
            page.wait_for_selector("#session-waits li", timeout=SHOWN_MS)
            shows(seen, "#session-waits", "which does not answer")
            before = text(seen, "#session")
            page.reload()
            page.wait_for_selector("#session-waits li", timeout=SHOWN_MS)
            page.wait_for_selector("#session-rounds figure", timeout=SHOWN_MS)
            expect(page.locator("#session")).to_have_text(before, timeout=SHOWN_MS, use_inner_text=True)
            for each in found.proxies:
                each.is_away = False
            running.result(DEADLINE_S)
            page.wait_for_selector("#session-rows .state-finished", timeout=SHOWN_MS)
            page.wait_for_selector("#session-outcome table", timeout=SHOWN_MS)
            rounds = script.session.rounds
            shows(seen, "#session-news", f"{rounds} of {rounds} rounds finished")
            expect(page.locator("#session-rounds figure")).to_have_count(2, timeout=SHOWN_MS)
            # What a chart shows is said, too, and its numbers stand beside it.
            chart = page.locator("#session-rounds svg[role=img]").first
            expect(chart).to_have_attribute("aria-label", re.compile(f"over {rounds} rounds"), timeout=SHOWN_MS)
            for kind in ("contract", "vote"):
                shows(seen, "#today", kind)
            shows(seen, "#ledger-length", "entries")
            assert seen.wrong == []
            origin = page.url.partition("#")[0]
            assert all(each.startswith((origin, "data:")) for each in seen.fetched)


def test_it_can_be_used_with_the_keyboard_and_at_a_telephones_width(tmp_path: Path) -> None:
    script = plain("federated_count").script
    acceptor = script.session.acceptors[0]
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), web=WEB) as found:
        found.run()
        for width in WIDTHS.values():
            with looked_at(found, acceptor, width=width, dark=width == WIDTHS["narrow"]) as seen:
                seen.page.wait_for_selector("#session h2", timeout=SHOWN_MS)
                seen.page.wait_for_selector("#session-crossed table", timeout=SHOWN_MS)
                assert seen.fits()
                seen.page.keyboard.press("Tab")
                assert seen.page.evaluate("document.activeElement.className") == "skip"
                reached = set()
                for _ in range(60):
                    seen.page.keyboard.press("Tab")
                    reached.add(seen.page.evaluate("document.activeElement.textContent"))
                assert any(script.session.id in each for each in reached if each)
                assert seen.wrong == []


def test_what_a_peer_is_called_is_text() -> None:
    """Names of sessions and parties are letters; what a contract says of features may be anything."""
    script = plain("teacher_votes").script
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), web=WEB) as found:
        found.run()
        with looked_at(found, "clinic") as seen:
            seen.page.wait_for_selector("#session-outcome table", timeout=SHOWN_MS)
            hostile = '<img src=x onerror="document.title=1">'
            shown = {"session": hostile, "state": "running", "protocol": hostile, "role": hostile, "peers": [hostile]}
            shown |= {"rounds": 3, "rounds_finished": 1, "begun": hostile, "waits": []}
            seen.page.evaluate(f"showSessions([{json.dumps(shown)}])")
            assert hostile in text(seen, "#session-rows")
            assert seen.page.locator("#session-rows img").count() == 0


def test_of_many_sessions_with_long_names_the_chosen_one_stays_near_and_what_ended_it_is_said() -> None:
    script = plain("teacher_votes").script
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), web=WEB) as found:
        found.run()
        for width in WIDTHS.values():
            with looked_at(found, "clinic", width=width) as seen:
                page = seen.page
                page.wait_for_selector("#session-crossed table", timeout=SHOWN_MS)
                shown = page.evaluate(f"fetch('sessions/{script.session.id}').then((answer) => answer.json())")
                others = [
                    {**shown, "session": f"{number:02d}-{'long-name-' * 6}", "peers": ["x" * 64]}
                    for number in range(60)
                ]
                # In one go: the page itself asks the node again and shows what there is.
                rows, height, below = page.evaluate(f"""() => {{
                    showSessions({json.dumps([*others, shown])});
                    const [table, session] = ["sessions-table", "session"].map((each) => at(each).getBoundingClientRect());
                    return [at("session-rows").children.length, table.height, session.y - table.y];
                }}""")
                assert rows == 61
                assert height < 500
                assert below < 600
                assert seen.fits()
                # Stopped, or failed before its peers were told: there is no result that would say why.
                stopped = {**shown, "state": "stopped", "ended": {}, "outcome": {}, "why": "hospital does not answer"}
                news = page.evaluate(
                    f"() => {{ showSession({json.dumps(stopped)}); return at('session-news').textContent; }}"
                )
                assert news.startswith("stopped, ")
                assert "hospital does not answer" in news
                assert seen.wrong == []


def test_without_the_token_there_is_one_line_and_nothing_else() -> None:
    script = plain("federated_count").script
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), web=WEB) as found:
        page = next(iter(found.clients.values())).status().page
        with opened(page.rstrip("/").rpartition("/")[0] + "/wrong/") as seen:
            shows(seen, "body", "needs its token")
            assert seen.page.locator("script").count() == 0


def test_an_address_in_use_ends_the_start_in_one_line(tmp_path: Path) -> None:
    script = plain("federated_count").script
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), web=WEB) as found:
        taken = next(iter(found.clients.values())).status().page.split("/")[2]
        values = {"party": "other", "state_dir": tmp_path, "insecure": True, "web": {"enabled": True, "listen": taken}}
        role = next(each.role for name, each in script.party.items() if name not in script.session.acceptors)
        with pytest.raises(AddressInUse, match="the page cannot be served"):
            Node(role, NodeConfig(**values)).serve(threading.Event())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocols_sessions_are_shown_at_all_parties(protocol: str) -> None:
    script = plain(protocol).script
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name), web=WEB) as found:
        found.run()
        for party in script.party:
            with looked_at(found, party) as seen:
                seen.page.wait_for_selector("#session-crossed table", timeout=SHOWN_MS)
                for figure in seen.page.locator("figure").all():
                    assert figure.locator("figcaption strong").inner_text()
                    assert figure.locator("svg text").count() > 2
                assert seen.wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_shown_of_rounds_while_a_session_goes_on_is_what_its_result_says(protocol: str) -> None:
    case = plain(protocol)
    statement = case.definition.presentation.per_round
    if statement is None or not statement.so_far:
        return
    with TemporaryDirectory(prefix="e2e-") as name:
        with network(case.script, Path(name)) as found:
            found.run()
        for party, section in case.script.party.items():
            if section.role != case.definition.center:
                continue
            store = SqlStore(store_url(Path(name) / party), party=party)
            (kept,) = store.sessions()
            contract, definition = contract_of(kept.contract)
            so_far = metrics_so_far(definition, contract, section.role, past_events(store, kept.session))
            metrics = kept.result["metrics"]
            assert so_far
            for column in statement.columns_of(so_far):
                assert so_far[column.field] == metrics[column.field], column.field
            store.close()

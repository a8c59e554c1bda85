"""Pages are served on this machine, to whoever has the token, and end with the node."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from comity import web
from comity.errors import AddressInUse, InvalidValue, StorageFailed, UnknownSession
from comity.transport.addresses import split_address
from comity.transport.status import STATUS
from comity.web.assets import assets
from comity.web.events import changes
from comity.web.server import Served, serving
from comity.web.status import http_status
from comity.web.token import token_in
from tests.e2e.conftest import until


class Asked:
    """What an answer was."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = dict(response.headers)
        self.text = response.read().decode()


def ask(served: Served, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Asked:
    line = http.client.HTTPConnection(served.address, timeout=10)
    try:
        line.request(method, path, body, headers)
        return Asked(line.getresponse())
    finally:
        line.close()


@contextmanager
def served(*routes: Route, listen: str = "127.0.0.1:0", **options: int) -> Iterator[Served]:
    with serving(routes, listen, **options) as where:
        yield where


def said(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {request.path_params.get('name', '')}")


async def echoed(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def refused(request: Request) -> Response:
    raise UnknownSession("there is no such session", expected="s-1", received="s-2", action="list them")


def broken(request: Request) -> Response:
    raise RuntimeError("the password is 1234")


def test_with_the_token_in_the_address_one_is_let_in() -> None:
    with served(Route("/", said), Route("/of/{name}", said)) as where:
        path = urlsplit(where.url).path
        assert ask(where, path).text == f"{path} "
        assert ask(where, f"{path}of/all").text == f"{path}of/all all"
        # So that relative addresses on the page are right.
        assert ask(where, path.rstrip("/")).status == 307


def test_with_the_token_in_a_header_one_is_let_in() -> None:
    with served(Route("/of/{name}", said)) as where:
        assert ask(where, "/of/all", Authorization=f"Bearer {where.token}").text == "/of/all all"


@pytest.mark.parametrize("path", ["/", "/of/all", "/wrong/of/all", "//of/all", "/%ff/of/all"])
def test_without_it_there_is_one_plain_line(path: str) -> None:
    with served(Route("/", said), Route("/of/{name}", said)) as where:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {where.token}"}):
            answer = ask(where, path, **headers)
            assert answer.status == 403
            assert answer.text.count("\n") == 1
            assert "needs its token" in answer.text
            assert where.token not in answer.text


def test_the_token_is_shown_nowhere_by_accident() -> None:
    with served(Route("/", said)) as where:
        assert where.token not in repr(where)
        assert len(where.token) >= 32


def test_no_other_name_leads_here() -> None:
    with served(Route("/", said)) as where:
        path = urlsplit(where.url).path
        assert ask(where, path, Host="evil.example.org").status == 403
        assert ask(where, path, Host="localhost:1234").status == 200
        assert ask(where, path, Host="[::1]:1234").status == 200


def test_every_answer_forbids_what_is_not_the_pages_own() -> None:
    with served(Route("/", said)) as where:
        for path in (urlsplit(where.url).path, "/", f"/{where.token}/nothing"):
            headers = ask(where, path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"


def test_an_error_is_its_status_and_one_line() -> None:
    with served(Route("/refused", refused), Route("/broken", broken)) as where:
        answer = ask(where, f"/{where.token}/refused")
        assert answer.status == 404
        assert answer.text == "there is no such session: expected s-1, received s-2; list them\n"
        answer = ask(where, f"/{where.token}/broken")
        assert answer.status == 500
        assert "1234" not in answer.text
        assert answer.text.count("\n") == 1
        assert ask(where, f"/{where.token}/nothing").status == 404


def test_every_error_has_a_status() -> None:
    assert {http_status(error("it went wrong")) for error in STATUS} <= set(range(400, 600))


def test_a_body_has_a_length() -> None:
    with served(Route("/", echoed, methods=["POST"]), max_body=1000) as where:
        path = urlsplit(where.url).path
        assert ask(where, path, "POST", b"x" * 1000).text == "1000"
        answer = ask(where, path, "POST", b"x" * 1001)
        assert answer.status == 413
        assert "at most 1000 bytes" in answer.text


def test_connections_that_say_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is on the machine opens as many as there may be: without a byte, in the middle of a request, or of its body."""
    monkeypatch.setattr("comity.web.server._SILENT_S", 1.0)
    begun = [b"", b"GET / HT", b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na"]
    with served(Route("/x", echoed, methods=["POST"]), Route("/", said)) as where, ExitStack() as stack:
        silent = []
        for number in range(90):
            line = stack.enter_context(socket.create_connection(split_address(where.address), timeout=30))
            said_so_far = begun[number % 3].replace(b"/x", f"/{where.token}/x".encode())
            with suppress(ConnectionError):
                # The first may be closed by now.
                line.sendall(said_so_far)
            silent.append(line)
        for line in silent:
            with suppress(ConnectionError):
                while line.recv(4096):
                    pass
        assert ask(where, f"/{where.token}/").status == 200


@pytest.mark.slow
def test_a_body_may_come_slowly_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.web.server._SILENT_S", 2.0)
    with served(Route("/", echoed, methods=["POST"])) as where:
        head = f"POST /{where.token}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n".encode()

        def dribbled() -> bytes:
            """What is answered to somebody who sends a byte now and then."""
            with socket.create_connection(split_address(where.address), timeout=30) as line:
                line.sendall(head)
                for _ in range(30):
                    with suppress(ConnectionError):
                        line.sendall(b"x")
                    # It is the time between the bytes that this is about.
                    line.settimeout(0.3)
                    with suppress(TimeoutError, ConnectionError):
                        return line.recv(4096)
                line.settimeout(30)
                with suppress(ConnectionError):
                    return line.recv(4096)
                return b""

        # Longer than one may take that says nothing.
        assert dribbled().startswith(b"HTTP/1.1 200")
        monkeypatch.setattr("comity.web.server._BODY_S", 2.0)
        assert dribbled() == b""


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "example.org:80", "127.0.0.1", "[::]:0"])
def test_others_do_not_reach_it(listen: str) -> None:
    with pytest.raises(InvalidValue, match="own machine|not an address"), serving([], listen):
        pass


def test_an_address_in_use_is_one_line() -> None:
    with served(Route("/", said)) as where:
        with pytest.raises(AddressInUse, match="configure another port") as raised, serving([], where.address):
            pass
        assert where.address in str(raised.value)


def test_a_socket_is_for_its_owner_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with served(Route("/", said), listen=f"unix:{path}") as where:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(path))
            line.sendall(f"GET /{where.token}/ HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert line.makefile().readline().split()[1] == "200"
        with pytest.raises(AddressInUse), serving([], f"unix:{path}"):
            pass
    assert not path.exists()


def test_the_folders_token_is_kept_for_its_owner(tmp_path: Path) -> None:
    token = token_in(tmp_path)
    assert token_in(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "web.token").stat().st_mode) == 0o600
    (tmp_path / "web.token").unlink()
    assert token_in(tmp_path) != token
    with pytest.raises(StorageFailed, match=r"web\.token cannot be used"):
        token_in(tmp_path / "missing")


def test_a_pages_files_are_what_they_are() -> None:
    with serving(assets("tests.web.page", "page.html", ["page.js"]), "127.0.0.1:0") as where:
        answer = ask(where, f"/{where.token}/")
        assert answer.headers["content-type"].startswith("text/html")
        assert "page.js" in answer.text
        assert "javascript" in ask(where, f"/{where.token}/page.js").headers["content-type"]
        assert ask(where, f"/{where.token}/__init__.py").status == 404


def test_what_changes_is_told_and_the_stream_ends_with_the_server() -> None:
    pictures = [{"a": 1, "b": [1]}, {"a": 2, "b": [1]}]
    told = threading.Event()
    lines: list[str] = []

    def read() -> dict[str, object]:
        return pictures.pop(0) if len(pictures) > 1 else pictures[0]

    def follow(where: Served) -> None:
        line = http.client.HTTPConnection(where.address, timeout=30)
        line.request("GET", f"/{where.token}/events")
        for each in line.getresponse():
            lines.append(each.decode().strip())
            if lines.count("event: a") == 2:
                told.set()
        line.close()

    with serving([Route("/events", lambda request: changes(request, read, 0.01))], "127.0.0.1:0") as where:
        follower = threading.Thread(target=follow, args=(where,))
        follower.start()
        assert told.wait(30)
    follower.join(30)
    assert not follower.is_alive()
    events = [line for line in lines if line.startswith(("event", "data"))]
    assert events == ["event: a", "data: 1", "event: b", "data: [1]", "event: a", "data: 2"]


def test_what_is_asked_while_it_stops_is_answered() -> None:
    asked, go_on = threading.Event(), threading.Event()
    answers: list[str] = []

    def slow(request: Request) -> Response:
        asked.set()
        go_on.wait(30)
        return JSONResponse({"done": True})

    with serving([Route("/slow", slow)], "127.0.0.1:0") as where:
        waiter = threading.Thread(target=lambda: answers.append(ask(where, f"/{where.token}/slow").text))
        waiter.start()
        assert asked.wait(30)
        threading.Timer(0.2, go_on.set).start()
    waiter.join(30)
    assert json.loads(answers[0]) == {"done": True}


def test_without_the_extra_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    web.require_web()
    monkeypatch.setattr(web, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(InvalidValue, match=r"received no uvicorn; pip install 'comity\[web\]'"):
        web.require_web()


def test_a_caller_that_reads_no_answer_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stranger without the token asks again and again, and never reads that it is not let in: it would keep a place."""
    monkeypatch.setattr("comity.web.server._SILENT_S", 1.0)
    place = str(tmp_path / "page.sock")

    def is_closed() -> bool:
        try:
            line.send(b"G", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return False

    with served(Route("/", said), listen=f"unix:{place}"), socket.socket(socket.AF_UNIX) as line:
        line.connect(place)
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1500)
        until(is_closed, "it is closed")

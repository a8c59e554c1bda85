"""The provider as a process of its own on a core of its own, driven by lines of JSON.

It answers each line on standard input with the processor time that it took so far: a session's script and how to
evaluate, which it begins after ending the one before, also with the address at which it helps; `null`, with no more. It
ends with the input.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack

import torch

from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.protocols.assisted_learning.studies.benchmarks.streaming.workload import Evaluation, begin, evaluating, pin
from comity.session.session_registry import AcceptedSession, SessionRegistry
from comity.session.worker import SessionWorker
from comity.transport.bindings.servicer import serve
from comity.transport.blobs import SERVICE, BlobServicer
from comity.transport.server import NodeServer
from comity.transport.sessions import session_of


def help_in(script: str, session: str, evaluation: Evaluation, stack: ExitStack) -> str:
    """Serves a session until the stack ends; returns the address."""
    _, peer_context = begin(script, session)
    stack.enter_context(evaluating(evaluation))
    role = PROTOCOL.load().acceptor(peer_context.place, [peer_context])
    worker = SessionWorker(role, "provider")
    stack.callback(worker.stop)
    sessions = SessionRegistry()
    sessions.add(AcceptedSession(peer_context, role, worker))
    server = NodeServer(None, [SERVICE, PROTOCOL.load().service.name])
    BlobServicer(lambda context: session_of(sessions, context)).add_to(server.server)
    serve(PROTOCOL.load().service, PROTOCOL.name, sessions, server.server, server.streams)
    address = server.start("127.0.0.1:0")
    stack.callback(server.stop, 0)
    return address


def main() -> None:
    """Helps in one session after another."""
    pin(1)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        for line in sys.stdin:
            address = ""
            if request := json.loads(line):
                stack.close()
                address = help_in(request["script"], request["session"], request["evaluation"], stack)
            sys.stdout.write(json.dumps({"address": address, "cpu_s": time.process_time()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Everything that is measured in plaintext, or under mTLS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from comity.bench.transfer import plain, sockets
from comity.bench.transfer.link import Courier
from comity.bench.transfer.process import Peer
from comity.bench.transfer.workload import RECEIVER, SENDER, Workload
from comity.transport.identity import Identity
from comity.transport.peer_connection import PeerConnection
from comity.transport.retry import RetryPolicy

Case = Callable[[], float]
"""Moves a checkpoint once; returns the seconds that it took."""

RAW = {"plaintext": "raw TCP", "mTLS": "raw TLS"}
"""The bare socket of each security."""


class Side:
    """The cases of one security.

    Args:
        security: `plaintext` or `mTLS`.
        identity: This process's certificate; None for plaintext.
        peer: The other process.
        workload: What is moved.
        stack: Where connections are closed.

    Attributes:
        senders: Ways to upload, by name.
        groups: Cases by label, by the label of their baseline, which is one of them.
        whole_groups: The same for whole messages, which slow down whatever comes after them and so stay among themselves.
    """

    def __init__(
        self, security: str, identity: Identity | None, peer: Peer, workload: Workload, stack: ExitStack
    ) -> None:
        ports = peer.ports[security]
        address = f"127.0.0.1:{ports['comity']}"
        link = stack.enter_context(PeerConnection(identity or Identity(SENDER), RECEIVER, address, RetryPolicy()))
        link.enter(workload.contract.session, workload.contract.hash)
        channel = stack.enter_context(plain.channel(identity, RECEIVER, ports["plain"]))
        context = None if identity is None else sockets.client_context(identity)
        raw = stack.enter_context(sockets.RawCopy(ports["raw"], workload.layout.size, context, RECEIVER))
        courier = Courier(link, peer, workload)
        whole = {
            f"whole message, {format}": partial(plain.upload_whole, channel, workload.state, format)
            for format in plain.FORMATS
        }
        upload, download = f"{RAW[security]}, upload", f"{RAW[security]}, download"
        beside = f"{upload}, beside whole messages"
        self.senders: dict[str, Case] = {"comity": courier.upload, **whole}
        self.groups: dict[str, dict[str, Case]] = {
            upload: {
                upload: raw.upload,
                f"{security}, comity, upload": courier.upload,
                f"{security}, chunks alone, dropped, upload": partial(
                    plain.upload_chunks, channel, courier.pack().data
                ),
            },
            download: {download: raw.download, f"{security}, comity, download": courier.download},
        }
        self.whole_groups: dict[str, dict[str, Case]] = {
            beside: {beside: raw.upload, **{f"{security}, {name}, upload": send for name, send in whole.items()}}
        }

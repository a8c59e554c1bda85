"""What crossed a network, read from a capture: TCP streams, and whether all of them are TLS."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_TCP, _IGMP, _ICMPV6 = 6, 2, 58
_LARGEST_RECORD = 2**14 + 256

Stream = tuple[str, int, str, int]
"""From address and port, to address and port."""


@dataclass
class Capture:
    """What was captured.

    Attributes:
        streams: Bytes of each direction of each connection, in order.
        holes: Directions of which a piece is missing.
        others: Frames that are no TCP, by what they are; those of neighbours finding each other are left out.
    """

    streams: dict[Stream, bytes] = field(default_factory=dict)
    holes: set[Stream] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)


def read_capture(path: Path) -> Capture:
    """Reads a file that `tcpdump -w` wrote of an Ethernet device."""
    data = path.read_bytes()
    order = "<" if data[:4] in {b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"} else ">"
    assert struct.unpack_from(f"{order}I", data, 20)[0] == 1, "an Ethernet capture"
    capture, at = Capture(), 24
    pieces: dict[Stream, dict[int, bytes]] = defaultdict(dict)
    first: dict[Stream, int] = {}
    while at + 16 <= len(data):
        kept, whole = struct.unpack_from(f"{order}II", data, at + 8)
        assert kept == whole, "frames were cut: capture them whole"
        _take(data[at + 16 : at + 16 + kept], capture, pieces, first)
        at += 16 + kept
    for stream, found in pieces.items():
        _join(stream, found, first, capture)
    return capture


def _take(frame: bytes, capture: Capture, pieces: dict[Stream, dict[int, bytes]], first: dict[Stream, int]) -> None:
    kind = struct.unpack_from(">H", frame, 12)[0]
    if kind == _ARP or (kind == _IPV6 and frame[14 + 6] in {0, _ICMPV6}):
        return
    if kind != _IPV4:
        capture.others[f"ethernet {kind:#06x}"] += 1
        return
    header, length = (frame[14] & 0xF) * 4, struct.unpack_from(">H", frame, 16)[0]
    if frame[23] == _IGMP:
        return
    if frame[23] != _TCP:
        capture.others[f"ip protocol {frame[23]}"] += 1
        return
    segment = frame[14 + header : 14 + length]
    source, target, number = struct.unpack_from(">HHI", segment)
    stream = (".".join(map(str, frame[26:30])), source, ".".join(map(str, frame[30:34])), target)
    if segment[13] & 0x02:
        first[stream] = (number + 1) & 0xFFFFFFFF
        pieces[stream].clear()
    if payload := segment[(segment[12] >> 4) * 4 :]:
        pieces[stream][number] = max(pieces[stream].get(number, b""), payload, key=len)


def _join(stream: Stream, found: dict[int, bytes], first: dict[Stream, int], capture: Capture) -> None:
    if stream not in first:
        # It began before the capture.
        capture.holes.add(stream)
        return
    joined, begin = bytearray(), first[stream]
    for offset, piece in sorted(((number - begin) & 0xFFFFFFFF, piece) for number, piece in found.items()):
        if offset > len(joined):
            capture.holes.add(stream)
            break
        joined += piece[len(joined) - offset :]
    capture.streams[stream] = bytes(joined)


def is_tls(data: bytes) -> bool:
    """Whether a direction of a connection is TLS records from its first byte on; the last one may have been cut off."""
    at = 0
    while at + 5 <= len(data):
        kind, major, minor, length = struct.unpack_from(">BBBH", data, at)
        if not (20 <= kind <= 23 and major == 3 and minor in {1, 3} and length <= _LARGEST_RECORD):
            return False
        at += 5 + length
    return True

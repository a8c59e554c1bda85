"""HTTP/2 (RFC 9113) and gRPC taken apart, as they are written in plaintext."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PING, CONTINUATION = 0, 1, 6, 9
ACK = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32
_STATIC_PATHS = {4: "/", 5: "/index.html"}
_STATIC_ENTRIES = 61


class Headers:
    """Undoes HPACK (RFC 7541) as gRPC writes it in one direction: without Huffman codes, so that text is text.

    Attributes:
        strings: Every name and value that crossed as a literal.
    """

    def __init__(self) -> None:
        self.strings: list[bytes] = []
        self._table: list[tuple[bytes, bytes]] = []

    def decode(self, block: bytes) -> dict[bytes, bytes]:
        """The headers of a block; those of HPACK's static table are left out, `:path` aside."""
        found: dict[bytes, bytes] = {}
        position = 0
        while position < len(block):
            first = block[position]
            if first & 0x80:
                index, position = self._integer(block, position, 7)
                name, value = self._entry(index)
            elif first & 0xE0 == 0x20:
                _, position = self._integer(block, position, 5)
                continue
            else:
                indexed = bool(first & 0x40)
                index, position = self._integer(block, position, 6 if indexed else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = self._string(block, position)
                value, position = self._string(block, position)
                if indexed:
                    self._table.insert(0, (name, value))
            found[name] = value
        return found

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index <= _STATIC_ENTRIES:
            return (b":path" if index in _STATIC_PATHS else b"", b"")
        return self._table[index - _STATIC_ENTRIES - 1]

    def _string(self, block: bytes, position: int) -> tuple[bytes, int]:
        assert not block[position] & 0x80, "a header in Huffman codes: this search would pass it by"
        length, position = self._integer(block, position, 7)
        text = block[position : position + length]
        assert len(text) == length
        self.strings.append(text)
        return text, position + length

    @staticmethod
    def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
        limit = 2**bits - 1
        value = block[position] & limit
        position += 1
        if value == limit:
            shift = 0
            while True:
                byte = block[position]
                position += 1
                value += (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
        return value, position


def frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """HTTP/2 frames (RFC 9113): kind, flags, stream and payload."""
    position = 0
    while position + 9 <= len(data):
        length = int.from_bytes(data[position : position + 3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[position + 3 : position + 9])
        payload = data[position + 9 : position + 9 + length]
        if len(payload) < length:
            return
        yield kind, flags, stream & 0x7FFFFFFF, payload
        position += 9 + length


def body(kind: int, flags: int, payload: bytes) -> bytes:
    """A frame's payload without its padding and priority."""
    padding = payload[0] if flags & PADDED else 0
    begin = (1 if flags & PADDED else 0) + (5 if kind == HEADERS and flags & PRIORITY else 0)
    return payload[begin : len(payload) - padding]


def messages(data: bytes) -> list[bytes]:
    """gRPC's messages in a stream's data; none may be compressed, or it would have to be undone."""
    found = []
    position = 0
    while position + 5 <= len(data):
        compressed, length = struct.unpack(">BI", data[position : position + 5])
        assert not compressed, "a compressed message: this search would pass it by"
        found.append(data[position + 5 : position + 5 + length])
        position += 5 + length
    return found

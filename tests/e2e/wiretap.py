"""What daemons say to each other in plaintext, recorded by a relay, undone to its bytes, and searched."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

from comity.protocol.registry import protocols
from comity.wire.v1 import blobs_pb2, sessions_pb2

DEADLINE_S = 60.0
SHAPE = (1, 8, 8)
CLASSES = 4
MEAN, STD = 0.44, 0.21
RUN = 16
"""Values in a row of a sample that are looked for: a quarter of it is a leak as well."""
SENTINEL = b"COMITY SENTINEL: THIS ROW OF PIXELS MAY NEVER LEAVE ITS NODE. !!"


# --- Samples, and all the forms that they could cross in ----------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """A party's data: noise with a pattern in it, so that any row of pixels is the only one of its kind."""

    x: NDArray[Any]
    y: NDArray[np.int64]

    def save(self, path: Path) -> None:
        np.savez(path, x=self.x, y=self.y, x_test=self.x[:8], y_test=self.y[:8], classes=np.array(CLASSES))

    @property
    def scaled(self) -> NDArray[np.float32]:
        """The samples as a model would see them without normalisation."""
        stored = self.x.astype(np.float32)
        return stored * np.float32(1 / 255) if self.x.dtype == np.uint8 else stored

    def forms(self) -> dict[str, NDArray[Any]]:
        """The samples in every form that a message could hold, `[samples, values]`."""
        scaled = self.scaled
        normalized = (scaled - np.float32(MEAN)) / np.float32(STD)
        bytewise = np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)
        forms = {"stored": self.x, "uint8": bytewise, "uint8 as float32": bytewise.astype(np.float32)}
        for name, values in (("scaled", scaled), ("normalized", normalized)):
            forms[name] = values
            forms[f"{name} float64"] = values.astype(np.float64)
            forms[f"{name} float16"] = values.astype(np.float16)
            forms[f"{name} big-endian"] = values.astype(">f4")
        return {name: values.reshape(len(values), -1) for name, values in forms.items()}

    def needles(self) -> Iterator[tuple[str, bytes]]:
        """What to look for: every quarter of every sample in every form, the labels, and the sentinel."""
        for form, samples in self.forms().items():
            for number, sample in enumerate(samples):
                for begin in range(0, sample.size, RUN):
                    yield f"sample {number} as {form}", sample[begin : begin + RUN].tobytes()
        for dtype in (np.uint8, np.int32, np.int64, np.float32):
            yield f"labels as {np.dtype(dtype)}", self.y.astype(dtype).tobytes()
        yield "the sentinel", SENTINEL[:RUN]


def make_samples(seed: int, samples: int, *, as_floats: bool) -> Samples:
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(CLASSES), random.integers(0, CLASSES, samples - CLASSES)])
    pixels = random.integers(0, 200, (samples, *SHAPE)).astype(np.uint8)
    # Something to learn: each class has a bright row of its own.
    for label in range(CLASSES):
        pixels[y == label, 0, label] += np.uint8(50)
    pixels[samples // 2] = np.frombuffer(SENTINEL, np.uint8).reshape(SHAPE)
    x = pixels.astype(np.float32) / np.float32(255) if as_floats else pixels
    return Samples(x, y)


# --- The relay --------------------------------------------------------------------------------------------------------


@dataclass
class Connection:
    """What a connection offline, in each direction."""

    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)


class Relay:
    """Passes TCP connections on, and keeps what they carry.

    Attributes:
        address: Where it listens.
        connections: What it passed on.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections: list[Connection] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        """Ends every connection and thread."""
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            connection = Connection()
            self.connections.append(connection)
            self._start(self._pump, client, server, connection.asked)
            self._start(self._pump, server, client, connection.answered)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        try:
            while data := source.recv(2**16):
                record += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def relaying(target: str) -> Iterator[Relay]:
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()


# --- From bytes to what was said ------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, CONTINUATION = 0, 1, 9
END_HEADERS, PADDED, PRIORITY = 4, 8, 32
STATIC_PATHS = {4: "/", 5: "/index.html"}
STATIC_ENTRIES = 61


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
        if index <= STATIC_ENTRIES:
            return (b":path" if index in STATIC_PATHS else b"", b"")
        return self._table[index - STATIC_ENTRIES - 1]

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


@dataclass
class Call:
    """One direction of an RPC.

    Attributes:
        method: Its full name.
        messages: The messages, as they were encoded.
    """

    method: str
    messages: list[bytes]


@dataclass
class Recording:
    """What crossed, at every level.

    Attributes:
        calls: The calls, each direction apart.
        haystacks: All bytes that crossed: as TCP offline them, and with each encoding undone.
    """

    calls: list[Call] = field(default_factory=list)
    haystacks: list[bytes] = field(default_factory=list)

    def blobs(self) -> list[bytes]:
        """The blobs that crossed, put together from their chunks."""
        moved = [call for call in self.calls if call.method.endswith(("Blobs/Put:asked", "Blobs/Get:answered"))]
        return [b"".join(blobs_pb2.BlobChunk.FromString(each).data for each in call.messages) for call in moved]

    def find(self, needles: list[tuple[str, bytes]]) -> list[str]:
        """The names of what is in there."""
        # One search text: a needle is too long to come about where two texts meet.
        text = b"\0\1\2\3".join(self.haystacks)
        return [name for name, needle in needles if needle in text]


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


def texts_in(message: Message) -> Iterator[bytes]:
    """Every text and every piece of bytes in a message, however deep."""
    for descriptor, value in message.ListFields():
        values = value if descriptor.is_repeated else [value]
        for each in values:
            if isinstance(each, Message):
                yield from texts_in(each)
            elif isinstance(each, bytes):
                yield each
            elif isinstance(each, str):
                yield each.encode()


def message_types() -> Iterator[tuple[str, type[Message]]]:
    """What each direction of each method between peers carries."""
    for module in (sessions_pb2, blobs_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"{service.name}/{method.name}:asked", GetMessageClass(method.input_type)
                yield f"{service.name}/{method.name}:answered", GetMessageClass(method.output_type)
    for definition in protocols():
        for each in definition.load().service.methods.values():
            name = called(each.path)
            yield f"{name}:asked", each.request_type
            yield f"{name}:answered", each.answer_type


def called(path: str) -> str:
    """A method as it is spoken of here: its service's name without its package."""
    return path.strip("/").rpartition(".")[2]


TYPES: Mapping[str, type[Message]] = dict(message_types())


def undo(connections: list[Connection]) -> Recording:
    """Takes apart what a relay recorded."""
    recording = Recording()
    for connection in connections:
        asked, answered = bytes(connection.asked), bytes(connection.answered)
        assert asked.startswith(PREFACE)
        recording.haystacks += [asked, answered]
        paths: dict[int, str] = {}
        for direction, data in (("asked", asked[len(PREFACE) :]), ("answered", answered)):
            headers = Headers()
            streams: dict[int, bytearray] = {}
            block = b""
            for kind, flags, stream, payload in frames(data):
                if kind == DATA:
                    streams.setdefault(stream, bytearray()).extend(body(kind, flags, payload))
                elif kind in {HEADERS, CONTINUATION}:
                    block += body(kind, flags, payload)
                    if flags & END_HEADERS:
                        named = headers.decode(block)
                        block = b""
                        if b":path" in named:
                            paths[stream] = named[b":path"].decode()
            recording.haystacks += headers.strings
            for stream, content in streams.items():
                method = f"{called(paths[stream])}:{direction}"
                call = Call(method, messages(bytes(content)))
                recording.calls.append(call)
                recording.haystacks.append(bytes(content))
                for encoded in call.messages:
                    decoded = TYPES[method].FromString(encoded)
                    recording.haystacks += [encoded, *texts_in(decoded)]
    recording.haystacks += recording.blobs()
    return recording

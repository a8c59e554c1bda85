"""What daemons say to each other in plaintext, recorded by a proxy, undone to its bytes, and searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

from comity.protocol.registry import protocols
from comity.wire.v1 import blobs_pb2, sessions_pb2
from tests.http2 import CONTINUATION, DATA, END_HEADERS, HEADERS, PREFACE, Headers, body, frames, messages
from tests.proxy import Connection

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
    classes: int = CLASSES

    def save(self, path: Path) -> None:
        np.savez(path, x=self.x, y=self.y, x_test=self.x[:8], y_test=self.y[:8], classes=np.array(self.classes))

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


def make_samples(seed: int, samples: int, *, as_floats: bool, classes: int = CLASSES) -> Samples:
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), random.integers(0, classes, samples - classes)])
    pixels = random.integers(0, 200, (samples, *SHAPE)).astype(np.uint8)
    # Something to learn: each class has a bright row, of its own where there are rows enough.
    for label in range(classes):
        pixels[y == label, 0, label % SHAPE[1]] += np.uint8(50)
    pixels[samples // 2] = np.frombuffer(SENTINEL, np.uint8).reshape(SHAPE)
    x = pixels.astype(np.float32) / np.float32(255) if as_floats else pixels
    return Samples(x, y, classes)


# --- From bytes to what was said ------------------------------------------------------------------------------------------


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
        haystacks: All bytes that crossed: as TCP has them, and with each encoding undone.
        attached: Blobs that crossed with the messages that name them, by direction.
    """

    calls: list[Call] = field(default_factory=list)
    haystacks: list[bytes] = field(default_factory=list)
    attached: list[tuple[str, bytes]] = field(default_factory=list)

    def blobs(self, *directions: str) -> list[bytes]:
        """The blobs that crossed, `asked` or `answered`, or both: those put together from their chunks, and those attached."""
        wanted = directions or ("asked", "answered")
        carriers = {"asked": "Blobs/Put:asked", "answered": "Blobs/Get:answered"}
        names = tuple(carriers[each] for each in wanted)
        moved = [call for call in self.calls if call.method.endswith(names)]
        whole = [b"".join(blobs_pb2.BlobChunk.FromString(each).data for each in call.messages) for call in moved]
        return whole + [content for direction, content in self.attached if direction in wanted]

    def find(self, needles: list[tuple[str, bytes]]) -> list[str]:
        """The names of what is in there."""
        # One search text: a needle is too long to come about where two texts meet.
        text = b"\0\1\2\3".join(self.haystacks)
        return [name for name, needle in needles if needle in text]


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


def attached_to(message: Message) -> Iterator[bytes]:
    """The blobs that travel with a message."""
    if isinstance(message, blobs_pb2.BlobRef) and message.content:
        yield message.content
    for descriptor, value in message.ListFields():
        for each in value if descriptor.is_repeated else [value]:
            if isinstance(each, Message):
                yield from attached_to(each)


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


def undo(connections: Sequence[Connection]) -> Recording:
    """Takes apart what a proxy recorded."""
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
                    recording.attached += [(direction, each) for each in attached_to(decoded)]
    recording.haystacks += recording.blobs()
    return recording

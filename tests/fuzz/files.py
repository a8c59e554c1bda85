"""Decoders of files that somebody wrote, or was given: scripts, configurations and data."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from importlib import import_module

import numpy as np
from PIL import Image

from comity.data.sources import load
from comity.node.config import NodeConfig, load_config
from comity.node.sessions.script import parse_script, session_text
from comity.node.validation import read_toml, validated
from comity.protocol.registry import protocols, roles
from tests.fuzz.decoder import MEBIBYTE, Decoder, scratch, written
from tests.fuzz.messages import contract_of

NODE = b"""
party = "clinic"
role = "learner"
state_dir = "state"
listen = "127.0.0.1:5000"
[tls]
certificate = "clinic.pem"
key = "key.pem"
trust = "trust"
[data]
source = "digits"
[policy]
max_rounds = 5
[peers.hospital]
address = "hospital.example.org:5000"
"""
PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def decoders() -> Iterator[Decoder]:
    """Scripts of every protocol, configurations of every role, and each kind of source that is read from files."""
    yield Decoder("script", _script, tuple(_scripts()), memory=16 * MEBIBYTE)
    yield Decoder("node configuration", _node, (NODE,), memory=16 * MEBIBYTE)
    yield Decoder("npz", lambda data: _source("npz", written("data.npz", data).name), tuple(_archives()))
    yield Decoder("array of an npz", _array, (_saved(np.arange(12, dtype=np.float32).reshape(4, 3)),))
    yield Decoder("lines of a text", _lines, (b"0\tgood film\n1\tbad film\n" * 8, b"bad\tno\ngood\tyes\n" * 8))
    yield Decoder("class of a text", _class, (b"good film\nfine\n" * 8,))
    yield Decoder("image", _image, tuple(_images()), memory=16 * MEBIBYTE)


def _scripts() -> Iterator[bytes]:
    for definition in protocols():
        contract = contract_of(definition)
        yield session_text(
            parse_script(
                f'[session]\nprotocol = "{definition.name}"\nacceptors = ["hospital"]\nrounds = 2\n'
                f"{_model(definition.models)}"
                f"[session.task]\ninput_shape = [1, 8, 8]\nclasses = 10\n[session.terms]\n"
                + "".join(
                    f"{name} = {value}\n"
                    for name, value in contract.terms.model_dump(mode="json").items()
                    if isinstance(value, int | float) and not isinstance(value, bool)
                )
            )
        ).encode()


def _model(names: tuple[str, ...]) -> str:
    return "".join(f'[session.models.{name}]\nname = "mlp"\noptions = {{ hidden = 8 }}\n' for name in names)


def _script(data: bytes) -> object:
    """A script with the terms of its protocol."""
    text = data.decode("utf-8", "replace")
    script = parse_script(text)
    known = {each.name: each.terms for each in protocols()}
    if script.session.protocol in known:
        validated(known[script.session.protocol], script.session.terms, "the terms")
    return script.session.named_models, session_text(script)


def _node(data: bytes) -> object:
    """A configuration, as all roles read it, and as that reads it which it names."""
    path = written("node/node.toml", data)
    role = read_toml(path).get("role")
    config = load_config(NodeConfig, path)
    if role in roles():
        module = import_module(f"{role}_node.config")
        return load_config(next(each for each in vars(module).values() if _is_role(each)), path)
    return config


def _is_role(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, NodeConfig) and value is not NodeConfig


def _source(kind: str, name: str, image_size: int | None = None) -> object:
    return load(f"{kind}:{name}", root=scratch(), seed=0, image_size=image_size)


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _archives() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, x=np.zeros((4, 3), np.float32), y=np.array([0, 1, 1, 0]))
        yield file.getvalue()


def _array(data: bytes) -> object:
    """An array in an archive that is whole otherwise, so that it gets past the archive's sums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", data)
        archive.writestr("y.npy", _saved(np.array([0, 1, 1, 0])))
    return _source("npz", written("array.npz", file.getvalue()).name)


def _lines(data: bytes) -> object:
    written("lines/train.tsv", data)
    return _source("text", "lines")


def _class(data: bytes) -> object:
    written("classes/bad", b"bad film\n" * 8)
    written("classes/good", data)
    return _source("text", "classes")


def _images() -> Iterator[bytes]:
    for form in ("PNG", "JPEG", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, form)
        yield file.getvalue()


def _image(data: bytes) -> object:
    """An image beside one that is whole, as it is and brought to a size."""
    written("images/a/first.png", next(_images()))
    written("images/a/second.png", data)
    _source("imagefolder", "images", 8)
    return _source("imagefolder", "images")

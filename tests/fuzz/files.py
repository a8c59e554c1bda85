"""Decoders of files that somebody wrote, or was given: scripts and configurations."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from comity.node.config import NodeConfig, load_config
from comity.node.sessions.script import parse_script, session_text
from comity.node.validation import read_toml, validated
from comity.protocol.registry import protocols, roles
from tests.fuzz.decoder import MEBIBYTE, Decoder, written
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


def decoders() -> Iterator[Decoder]:
    """Scripts of every protocol, and configurations of every role."""
    yield Decoder("script", _script, tuple(_scripts()), memory=16 * MEBIBYTE)
    yield Decoder("node configuration", _node, (NODE,), memory=16 * MEBIBYTE)


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

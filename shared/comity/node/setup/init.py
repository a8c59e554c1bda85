"""The first files of a node: configuration, key, card, and an empty folder for the cards of others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import get_args

import tomlkit

from comity.contract import IDENTIFIER
from comity.errors import InvalidValue, MissingFile
from comity.node.setup.data_section import data_section
from comity.privacy.settings import Preset
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocols, protocols_for
from comity.protocol.topology import Topology
from comity.session.policy import Policy
from comity.store.secrets import secrets_in
from comity.suggestions import did_you_mean
from comity.transport.addresses import split_address
from comity.transport.cards import Card, fingerprint
from comity.transport.certificates import self_signed

CONFIG = "node.toml"
OPERATOR = "operator"
"""What `comity init` takes beside the roles: an operator who drives nodes from another machine."""

_KEY = Path("key.pem")
_NODE = "comity.node.setup:templates/node.toml"
_PLACED = frozenset(
    {
        "cinic10",
        "cityscapes",
        "cityscapes-tasks",
        "csv",
        "imagefolder",
        "npz",
        "nyuv2",
        "parquet",
        "text",
        "tiny-imagenet",
    }
)
"""Sources that are files or folders."""
_LISTEN = "0.0.0.0:5500"


@dataclass(frozen=True, slots=True)
class NodeChoices:
    """What is known of a node before it has files.

    Attributes:
        role: What it does.
        party: Name of its party.
        listen: Where peers are to reach it, `host:port`; empty for any address at port 5500, if its role listens.
        data: Source of its data.
        targets: Of a table, the columns with what is to be told; its last one if empty.
        peers: Addresses of the parties that it asks, by name.
        allow: Parties that may have sessions with it; none for all that it trusts.
        control: Where operators on other machines reach it, `host:port`; empty for its socket alone.
        privacy: What protects its samples: `guarded`, `dp` or `public`.
    """

    role: str
    party: str
    listen: str = ""
    data: str = "digits"
    peers: Mapping[str, str] | None = None
    allow: Sequence[str] = ()
    control: str = ""
    privacy: str = "guarded"
    targets: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Initial:
    """What was made.

    Attributes:
        files: The files and folders.
        card: The file for other parties.
        fingerprint: SHA-256 of the certificate, hexadecimal.
        receipt_key: Key that the node signs its receipts with, hexadecimal; None for an operator.
        scripts: Sessions to run, or to open, one for each protocol that the role begins; none where no peer to ask is known.
        asks: Whether it is a node that needs to know where others are.
    """

    files: tuple[Path, ...]
    card: Path
    fingerprint: str
    receipt_key: str | None = None
    scripts: tuple[Path, ...] = ()
    asks: bool = False


def make_node(folder: Path, choices: NodeChoices) -> Initial:
    """Writes a node's first files; its configuration last, so that where there is one the rest is there too.

    Raises:
        InvalidValue: A choice cannot be used, or there is a node already.
        MissingFile: The folder is a file.
    """
    role, party = choices.role, choices.party
    definitions = protocols_for(role)
    if not definitions:
        known = sorted({name for each in protocols() for name in each.roles})
        action = did_you_mean(role, [*known, OPERATOR], "name one of these")
        raise InvalidValue("no such role", expected=" or ".join([*known, OPERATOR]), received=role, action=action)
    listens = any(each.acceptor == role for each in definitions)
    _require_usable(choices, listens=listens)

    section = data_section(_from(choices.data, folder), folder, choices.targets)
    task = _task_of(section)
    templates = _scripts_of([each for each in definitions if not (task and each.tasks) or task in each.tasks], choices)
    scripts = [folder / name for name in templates]
    key, card, config = folder / _KEY, folder / f"{party}.pem", folder / CONFIG
    state, trust = folder / "state", folder / "trust"
    _require_new(folder, config, key, card, *scripts)
    settings = _settings(choices, listen=choices.listen or (_LISTEN if listens else ""))
    settings["data"] = section
    settings["protocols"] = _protocols(definitions)
    settings["egress"] = _egress(definitions)
    certificate, private = self_signed(party)
    try:
        for made in (folder, trust):
            made.mkdir(parents=True, exist_ok=True)
        state.mkdir(mode=0o700, exist_ok=True)
        receipt_key = secrets_in(state).receipt_key().public_key
        _write(key, private)
        _write(card, Card((certificate,), receipt_key).to_pem(), mode=0o644)
        for script, (template, acceptors) in zip(scripts, templates.values(), strict=True):
            filling = {
                "acceptor": " and ".join(acceptors),
                "acceptor_value": ", ".join(map(_value, acceptors)),
                "normalization": _normalization(choices),
            }
            filled = Template(_text(template)).substitute(filling)
            _write(script, filled.encode(), mode=0o644)
        _write(config, Template(_text(_NODE)).substitute(settings).encode())
    except OSError as error:
        raise _not_writable(folder, error) from error
    made_files = (config, key, card, trust, state / "secret", *scripts)
    asks = any(each.initiator == role for each in definitions)
    return Initial(made_files, card, fingerprint(certificate), receipt_key, tuple(scripts), asks)


def make_operator(folder: Path, party: str) -> Initial:
    """Writes what an operator needs to drive nodes from another machine: a key, a certificate, a folder for nodes' cards.

    Raises:
        InvalidValue: The name cannot be used, or there is a key already.
        MissingFile: The folder is a file.
    """
    require_name(party)
    key, card, trust = folder / _KEY, folder / f"{party}.pem", folder / "trust"
    _require_new(folder, folder / CONFIG, key, card)
    certificate, private = self_signed(party)
    try:
        trust.mkdir(parents=True, exist_ok=True)
        _write(key, private)
        _write(card, Card((certificate,)).to_pem(), mode=0o644)
    except OSError as error:
        raise _not_writable(folder, error) from error
    return Initial((key, card, trust), card, fingerprint(certificate))


def require_name(name: str) -> None:
    """Checks that a name can be a party's: it becomes part of paths and of certificates.

    Raises:
        InvalidValue: It cannot.
    """
    if name == _KEY.stem:
        action = "choose another name"
        raise InvalidValue(
            f"{name}.pem would take the place of {_KEY}", expected="a party", received=name, action=action
        )
    if not re.fullmatch(IDENTIFIER, name):
        raise InvalidValue(
            "not a party's name",
            expected="letters, digits, dots, dashes and underscores, at most 64",
            received=repr(name),
            action="choose a name like hospital",
        )


def _require_usable(choices: NodeChoices, *, listens: bool) -> None:
    """Checks what was chosen for a role that listens or not."""
    party, peers = choices.party, choices.peers or {}
    for name in (party, *peers, *choices.allow):
        require_name(name)
    if party in peers:
        raise InvalidValue(
            "a node cannot ask itself",
            expected="another party's name",
            received=party,
            action="correct --party or --peer",
        )
    for address in (choices.listen, choices.control, *peers.values()):
        if address:
            split_address(address)
    if choices.listen and not listens:
        action = "leave out --listen: it opens connections and takes none"
        raise InvalidValue(
            f"a {choices.role} does not listen", expected="no address", received=choices.listen, action=action
        )
    if choices.privacy not in get_args(Preset):
        raise InvalidValue(
            "no such preset",
            expected=", ".join(get_args(Preset)),
            received=choices.privacy,
            action="correct --privacy",
        )
    if not choices.data:
        raise InvalidValue(
            "no data",
            expected="a source, for example imagefolder:scans",
            received="nothing",
            action="leave --data out for digits, or name one",
        )


def _settings(choices: NodeChoices, *, listen: str) -> dict[str, str]:
    """What goes into the template, as TOML."""
    tables = [
        f"[peers.{tomlkit.key(name).as_string()}]\n# Where its node listens, host:port.\naddress = {_value(address)}"
        for name, address in (choices.peers or {}).items()
    ]
    example = '# [peers.NAME]\n# Where its node listens, host:port.\n# address = "node.example.org:5500"'
    return {
        "role": choices.role,
        "party": choices.party,
        "role_value": _value(choices.role),
        "party_value": _value(choices.party),
        "card_value": _value(f"{choices.party}.pem"),
        "listen": f"listen = {_value(listen)}" if listen else '# listen = ""',
        "privacy": _value(choices.privacy),
        "control": f"listen = {_value(choices.control)}" if choices.control else '# listen = ""',
        "parties": f"parties = {_value(list(choices.allow))}" if choices.allow else "# parties = []",
        "peers": "\n\n".join(tables) or example,
    }


def _normalization(choices: NodeChoices) -> str:
    """What a script may say of inputs that are numbers; words and games have none."""
    if choices.data.partition(":")[0] in {"text", "gymnasium"}:
        return ""
    return (
        "# What is done to every input, nothing if left out: mean and standard deviation of this node's samples, to two\n"
        "# digits, which the other side then knows; or numbers, { mean = [...], std = [...] }, one a channel or feature.\n"
        '# normalization = "computed"\n'
    )


def _from(source: str, folder: Path) -> str:
    """A source whose place, if it is one from here, is found from the node's folder as well."""
    kind, _, location = source.partition(":")
    path = Path(location).expanduser()
    if kind not in _PLACED or path.is_absolute() or (folder / path).exists() or not location or not path.exists():
        return source
    return f"{kind}:{path.absolute()}"


def _task_of(section: str) -> str:
    """The kind of task that data are for, where their section says so; empty where it does not."""
    said = tomlkit.parse(section).unwrap()
    if said["source"].startswith("gymnasium:"):
        return "reinforcement"
    kind = said.get("data", {}).get("table", {}).get("kind", "")
    return {"numbers": "regression", "labels": "multilabel"}.get(kind, "")


def _value(value: str | list[str]) -> str:
    return tomlkit.item(value).as_string()


def _text(place: str) -> str:
    """The text of a template, `package:FILE`."""
    package, _, name = place.partition(":")
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _scripts_of(definitions: Sequence[ProtocolDefinition], choices: NodeChoices) -> dict[str, tuple[str, list[str]]]:
    """By the names of first scripts their template, and whose session it is: all peers', where all may help at once.

    None where the node begins no session, or knows no peer to ask. Those of protocols that are for other data are left out.
    The first protocol's is `session.toml`.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    peers = [*(choices.peers or {})]
    for each in definitions:
        if each.center == choices.role and each.extensions.script_template:
            others = peers if each.topology is Topology.FAN_OUT else peers[:1]
            acceptors = [choices.party] if each.topology.is_joined else others
            if acceptors:
                name = f"session-{each.name.replace('_', '-')}.toml" if found else "session.toml"
                found[name] = each.extensions.script_template, acceptors
    return found


def _egress(definitions: Sequence[ProtocolDefinition]) -> str:
    """What a policy has to name for protocols of whose kinds some leave by no default; samples are proposed to nobody."""
    named = {*Policy().egress, "sample"}
    return "".join(
        f"\n# What crosses in {each.name.replace('_', '-')}, which the above does not name: list it to take part.\n"
        f"# egress = {_value([kind for kind in each.egress if kind != 'sample'])}"
        for each in definitions
        if not named.issuperset(each.egress)
    )


def _protocols(definitions: Sequence[ProtocolDefinition]) -> str:
    """A table for each protocol that has settings."""
    tables = [
        f"# What the protocol {each.name.replace('_', '-')} leaves to a node.\n"
        f"[protocols.{each.name.replace('_', '-')}]\n{_text(each.extensions.settings_template)}\n"
        for each in definitions
        if each.extensions.settings_template
    ]
    return "".join(tables)


def _require_new(folder: Path, *paths: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise MissingFile(
            f"{folder} is no folder",
            expected="a folder, or a new name",
            received="a file",
            action="choose another name",
        )
    for path in paths:
        if path.exists() or path.is_symlink():
            action = "it is left as it is; choose another folder, or remove it if it is not needed"
            raise InvalidValue(
                f"{path} is there already", expected="a folder without it", received="a file", action=action
            )


def _write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a new file; never over one that has appeared meanwhile."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _not_writable(folder: Path, error: OSError) -> InvalidValue:
    return InvalidValue(
        f"{folder} cannot be used",
        expected="a writable folder",
        received=error.strerror or error,
        action="choose another",
    )

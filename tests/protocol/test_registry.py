"""Protocols of other packages: what cannot be used is said in a line, and the others work."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from comity.bench import known
from comity.errors import InvalidValue, UnsupportedProtocol
from comity.experiments import demo_names
from comity.experiments.registry import chosen, experiments
from comity.experiments.studies import demo_named
from comity.node.config import NodeConfig
from comity.node.daemon import Node
from comity.protocol.registry import protocol, protocol_names, protocols, unusable, usable_for
from tests.protocol.conftest import DEFINITION, IMPLEMENTATION, Install

OWN = protocol_names()


def entry(name: str, target: str) -> str:
    return f"[comity.protocols]\n{name} = {target}\n"


def usable() -> list[str]:
    return [each.name for each in protocols()]


def test_a_package_that_cannot_be_imported_is_left_out(install: Install) -> None:
    install("brokenpkg", entry("broken", "brokenpkg.definition:PROTOCOL"), definition="import nothing_like_it")
    (left,) = unusable()
    assert (left.package, left.name) == ("brokenpkg", "broken")
    assert "nothing_like_it" in left.what
    assert "\n" not in str(left)
    assert "brokenpkg" in str(left)
    assert usable() == OWN
    with pytest.raises(UnsupportedProtocol, match="package brokenpkg"):
        protocol("broken")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("PROTOCOL = 1", "is a int and no ProtocolDefinition"),
        ("", "AttributeError"),
        ("raise RuntimeError('first line\\nsecond line')", "first line second line"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (DEFINITION.format(name="another", package="oddpkg", extensions=""), "calls itself another"),
    ],
)
def test_what_is_no_definition_is_left_out(install: Install, text: str, what: str) -> None:
    install("oddpkg", entry("odd", "oddpkg.definition:PROTOCOL"), definition=text)
    (left,) = unusable()
    assert what in str(left)
    assert usable() == OWN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "'1'"),
        ("version", "0"),
        ("initiator", "'../x y'"),
        ("acceptor", "'wisher'"),
        ("topology", "'pair'"),
        ("egress", "('Contract!',)"),
        ("egress", "'contract'"),
        ("models", "['model']"),
        ("trains", "frozenset({'nobody'})"),
        ("terms", "dict"),
        ("presentation", "None"),
        ("presentation", "Presentation(View({'wisher': ()}, Summary('nothing', (), '')))"),
        ("implementation", "None"),
        ("extensions", "{}"),
    ],
)
def test_a_definition_that_cannot_be_used_is_left_out(install: Install, field: str, value: str) -> None:
    text = DEFINITION.format(name="odd", package="oddpkg", extensions="")
    text += f"from dataclasses import replace\nPROTOCOL = replace(PROTOCOL, {field}={value})\n"
    install("oddpkg", entry("odd", "oddpkg.definition:PROTOCOL"), definition=text)
    (left,) = unusable()
    assert f"{field} of the protocol's definition cannot be used" in str(left)
    assert "\n" not in str(left)
    assert usable() == OWN


@pytest.mark.parametrize("template", ["settings_template", "script_template"])
@pytest.mark.parametrize("place", ["oddpkg:nothing.toml", "nopkg:nothing.toml", "oddpkg"])
def test_a_template_that_is_not_there_leaves_the_protocol_out(install: Install, template: str, place: str) -> None:
    """Or nobody could set up a node of its role any more."""
    text = DEFINITION.format(name="odd", package="oddpkg", extensions=f"{template}={place!r}")
    install("oddpkg", entry("odd", "oddpkg.definition:PROTOCOL"), definition=text)
    (left,) = unusable()
    assert f"it has no file {place}" in str(left)
    assert usable() == OWN


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("IMPLEMENTATION = 1", "is a int and no Implementation"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (
            f"{IMPLEMENTATION.format(service='oddpkg')}SERVICE.terms = GetMessageClass(CALLS.methods[0].input_type)",
            "its terms and their message have other fields: inner",
        ),
    ],
    ids=["no implementation", "leaves", "other terms"],
)
def test_an_implementation_that_does_not_fit_is_left_out(install: Install, text: str, what: str) -> None:
    definition = DEFINITION.format(name="odd", package="oddpkg", extensions="")
    install("oddpkg", entry("odd", "oddpkg.definition:PROTOCOL"), definition=definition, implementation=text)
    (left,) = unusable(implementations=True)
    assert what in str(left)
    assert usable_for("wisher") == []


def test_calls_stay_with_who_has_them(install: Install) -> None:
    """A server has one handler for a call: a package that registers another's would take its callers."""
    own = next(each for each in protocols() if each.implementation.startswith("comity."))
    module, _, theirs = own.implementation.partition(":")
    offered, service = [each.name for each in usable_for(own.acceptor)], own.load().service.name
    taking = (
        f"from {module} import {theirs} as THEIRS\n"
        f"{IMPLEMENTATION.format(service='taking')}"
        "SERVICE.name = THEIRS.service.name\nIMPLEMENTATION = Implementation(SERVICE, None, None, None)\n"
    )
    for name in ("aa", "bb"):
        text = DEFINITION.format(name=name, package=f"{name}pkg", extensions="")
        calls = taking if name == "aa" else IMPLEMENTATION.format(service="bbcalls")
        install(f"{name}pkg", entry(name, f"{name}pkg.definition:PROTOCOL"), definition=text, implementation=calls)
    (left,) = unusable(implementations=True)
    assert left.name == "aa"
    assert f"{own.name} has the calls of {service}" in left.what
    assert [each.name for each in usable_for("wisher")] == ["bb"]
    assert [each.name for each in usable_for(own.acceptor)] == offered


def test_a_name_that_is_taken_stays_with_who_has_it(install: Install) -> None:
    taken = next(each.name for each in protocols() if each.implementation.startswith("comity."))
    definition = DEFINITION.format(name=taken, package="thiefpkg", extensions="")
    install("thiefpkg", entry(taken.replace("_", "-"), "thiefpkg.definition:PROTOCOL"), definition=definition)
    (left,) = unusable()
    assert (left.package, left.name) == ("thiefpkg", taken)
    assert "package comity has one of that name" in left.what
    assert protocol(taken.replace("_", "-")).implementation.startswith("comity.")


def test_of_two_packages_the_first_by_name_keeps_a_name(install: Install) -> None:
    for package in ("zzpkg", "aapkg"):
        text = DEFINITION.format(name="shared_name", package=package, extensions="")
        install(package, entry("shared_name", f"{package}.definition:PROTOCOL"), definition=text)
    assert protocol("shared_name").implementation.startswith("aapkg.")
    assert [each.package for each in unusable()] == ["zzpkg"]


def test_an_implementation_that_fails_is_found_when_it_is_looked_at(install: Install) -> None:
    text = DEFINITION.format(name="half", package="halfpkg", extensions="")
    failing = "from comity.errors import InvalidValue\nraise InvalidValue('the call Ask has no codec')"
    install("halfpkg", entry("half", "halfpkg.definition:PROTOCOL"), definition=text, implementation=failing)
    assert unusable() == []
    assert usable() == sorted([*OWN, "half"])
    (left,) = unusable(implementations=True)
    assert left.package == "halfpkg"
    assert "the call Ask has no codec" in str(left)
    assert usable_for("wisher") == []


CALLS = """
from comity.transport.service import Service
from tests.session.test_egress_rules import TELL, declare

SERVICE = Service(declare("{name}", {rules}), [TELL], client=object, terms=None)
IMPLEMENTATION = None
"""


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ('kind="loss"', "has no egress rule"),
        ('data="loss"', "has no egress rule"),
        ('kind="loss", data="loss"', "has no codec"),
    ],
)
def test_a_call_without_rule_or_codec_leaves_its_protocol_out(install: Install, rules: str, what: str) -> None:
    name = "bare"
    text = DEFINITION.format(name="bare", package="barepkg", extensions="")
    calls = CALLS.format(name=name, rules=rules)
    install("barepkg", entry("bare", "barepkg.definition:PROTOCOL"), definition=text, implementation=calls)
    (left,) = unusable(implementations=True)
    assert (left.package, left.name) == ("barepkg", "bare")
    assert what in left.what
    assert "bare" not in [each.name for each in usable_for("wisher")]


def test_a_protocol_from_elsewhere_is_one_like_the_others(install: Install) -> None:
    text = DEFINITION.format(name="fine", package="finepkg", extensions="")
    implementation = IMPLEMENTATION.format(service="finepkg")
    install("finepkg", entry("fine", "finepkg.definition:PROTOCOL"), definition=text, implementation=implementation)
    assert protocol_names() == sorted([*OWN, "fine"])
    assert unusable(implementations=True) == []
    with pytest.raises(UnsupportedProtocol, match="did you mean fine"):
        protocol("fin")


def test_help_names_the_package_in_one_line(install: Install) -> None:
    site = install("brokenpkg", entry("broken", "brokenpkg.definition:PROTOCOL"), definition="import nothing_like_it")
    ran = subprocess.run(
        [sys.executable, "-c", "from comity.cli.main import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(site), "PATH": ""},
    )
    assert ran.returncode == 0
    (line,) = ran.stderr.splitlines()
    assert "brokenpkg" in line


def test_studies_that_cannot_be_imported_are_said_where_they_are_missed(install: Install) -> None:
    install("broken_studies", "[comity.studies]\nwishes = broken_studies.studies:STUDIES\n", studies="import nowhere\n")
    with pytest.raises(InvalidValue, match="no such demo") as refused:
        demo_named("wishes")
    assert "the studies wishes of package broken_studies are left out: ModuleNotFoundError" in str(refused.value)
    assert demo_named("vote-pool")[0] == "vote-pool"


def test_names_of_demos_stay_with_who_has_them(install: Install) -> None:
    taken = next(each for each in demo_names() if demo_named(each)[1].script.startswith("comity."))
    studies = (
        "from comity.experiments.studies import Benchmark, Demo, Studies\n"
        f"STUDIES = Studies('wishes', demos={{'{taken}': Demo('takerpkg.studies:script')}},\n"
        "    benchmarks={'startup': Benchmark('none', 'takerpkg.studies:run'),\n"
        "                'rounds': Benchmark('none', 'takerpkg.studies:run')})\n"
    )
    install("takerpkg", "[comity.studies]\nwishes = takerpkg.studies:STUDIES\n", studies=studies)
    assert demo_named(taken)[1].script.startswith("comity.")
    assert known()["startup"].run.startswith("comity.")


def test_a_node_with_nothing_to_do_does_not_start(install: Install, tmp_path: Path) -> None:
    """Nobody waits for it, and its last words say which package is broken."""
    text = DEFINITION.format(name="half", package="halfpkg", extensions="")
    install(
        "halfpkg", entry("half", "halfpkg.definition:PROTOCOL"), definition=text, implementation="IMPLEMENTATION = 1"
    )
    config = NodeConfig(party="clinic", insecure=True, state_dir=tmp_path / "state")
    with pytest.raises(UnsupportedProtocol, match="no protocol for a giver") as caught:
        Node("giver", config).serve(threading.Event())
    assert "package halfpkg is left out" in str(caught.value.received)


def test_experiments_that_cannot_be_imported_hide_no_others(install: Install) -> None:
    before = set(experiments())
    studies = (
        "from comity.experiments.studies import Studies\nSTUDIES = Studies('odd', experiments=('oddpkg.none:ALL',))"
    )
    install("oddpkg", "[comity.studies]\nodd = oddpkg.studies:STUDIES\n", studies=studies)
    assert set(experiments()) == before
    with pytest.raises(InvalidValue, match="the experiments at oddpkg.none:ALL are left out: ModuleNotFoundError"):
        chosen(["nothing-like-it"])

"""The files of deploy/ that make and join containers, as far as that can be said without Docker; `make test-compose` runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from comity.node.sessions.script import parse_script
from comity.protocol.registry import protocol
from comity.simulation.places import OPERATOR, Layout
from tests.compose.stack import DEPLOY, PLACES, ROOT, named

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PLACED = [named(role, 1 + at) for role, many in PLACES.items() for at in range(many)]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_every_party_has_a_network_of_its_own_and_shares_one() -> None:
    assert [name for name in COMPOSE["services"] if name not in {"setup", OPERATOR}] == PLACED
    for place in PLACED:
        networks = COMPOSE["services"][place]["networks"]
        assert networks == {place: {"aliases": [f"{place}.private"]}, "wan": {"aliases": [f"{place}.wan"]}}
        assert COMPOSE["networks"][place] == {"internal": True}
        assert COMPOSE["services"][place]["volumes"] == [f"{place}:/node"]
    assert {*COMPOSE["networks"]} == {*PLACED, "wan"}


def test_the_operator_is_not_on_the_shared_network_and_setup_on_none() -> None:
    assert {*COMPOSE["services"][OPERATOR]["networks"]} == {*PLACED}
    assert COMPOSE["services"]["setup"]["network_mode"] == "none"


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_a_container_may_do_little(service: str) -> None:
    found = COMPOSE["services"][service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in found
    assert (found["user"] == "0:0") == (service == "setup")
    assert found.get("cap_add", []) == (["CHOWN", "DAC_OVERRIDE"] if service == "setup" else [])


def test_setup_knows_every_place() -> None:
    setup = COMPOSE["services"]["setup"]
    assert re.findall(r"--place (\S+)", setup["command"][0]) == PLACED
    assert setup["volumes"][1:] == [f"{place}:/nodes/{place}" for place in [*PLACED, OPERATOR]]


@pytest.mark.parametrize(
    ("script", "roles"),
    [("providers.toml", {"learner": 1, "provider": 2}), ("clients.toml", {"server": 1, "client": 5})],
)
def test_a_script_fills_its_places(script: str, roles: dict[str, int]) -> None:
    parsed = parse_script((DEPLOY / "scripts" / script).read_text())
    taken = Layout(tuple(PLACED)).assigned(parsed)
    assert sorted(taken.values()) == sorted(named(role, 1 + at) for role, many in roles.items() for at in range(many))
    assert {section.role for section in parsed.party.values()} == {*protocol(parsed.session.protocol).roles}


def test_what_is_said_without_an_environment() -> None:
    said = dict(line.split("=", 1) for line in (DEPLOY / ".env").read_text().splitlines() if line and line[0] != "#")
    assert said["COMITY_SCRIPT"] == "providers.toml"
    assert (DEPLOY / said["COMITY_SCRIPTS"] / said["COMITY_SCRIPT"]).is_file()
    profiles = {each for service in COMPOSE["services"].values() for each in service.get("profiles", ())}
    assert profiles == {"providers", "clients", "operator"}
    assert said["COMPOSE_PROFILES"] in profiles


def test_the_image_is_built_of_what_is_there() -> None:
    extras = re.search(r'ARG EXTRAS="(.+)"', DOCKERFILE)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {*extras[1].split()} <= {*known["project"]["optional-dependencies"]}
    packages = known["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {each.partition("/")[0] for each in packages["packages"]} | {
        "protos",
        "pyproject.toml",
        "uv.lock",
        "README.md",
        "LICENSE",
    }
    copied = {
        each for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for each in line.split()
    }
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == admitted == needed
    assert not re.search(r"^ENTRYPOINT (?!\[)|^CMD (?!\[)", DOCKERFILE, re.MULTILINE), (
        "a shell would keep SIGTERM to itself"
    )


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="there is no docker-compose")
def test_compose_takes_it() -> None:
    done = subprocess.run(
        ["docker-compose", "config", "--services"], cwd=DEPLOY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {*done.stdout.split()} == {*COMPOSE["services"]}

"""What a protocol adds to a node: settings, services, verbs, audits."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import grpc
import pytest
from cryptography.x509 import load_pem_x509_certificate
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from comity.cli.audit import run_audit
from comity.contract import Contract, Membership, Terms
from comity.errors import InvalidValue, MissingFile, UnknownKey
from comity.node.config import PartyConfig
from comity.node.sessions.initiator import stored
from comity.protocol.definition import ProtocolDefinition
from comity.protocol.registry import protocol, protocols, unusable
from comity.protocol.services import ServiceContext, Services, ServiceSettings, served
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.tasks.classification import classification
from comity.transport.cards import fingerprint
from comity.transport.certificates import Authority
from comity.transport.identity import Identity
from comity.transport.server import NodeServer
from tests.protocol.conftest import DEFINITION, Install, forget

ENTRY = "[comity.protocols]\ngreeting = greetpkg.definition:PROTOCOL\n"
EXTENSIONS = """
    settings="greetpkg.extensions:Settings",
    services=(ServiceExtension("greeter", "wisher", "greetpkg.service:run"),),
    verbs=(
        Verb("greet", "Greets somebody.", "greetpkg.verbs:greet"),
        Verb("words list", "Lists words.", "greetpkg.verbs:words"),
        Verb("run", "Takes a name that is taken.", "greetpkg.verbs:greet"),
    ),
    audits=(Audit("names", "Which names were said.", "greetpkg.audits:audit"),),
"""
SETTINGS = """
from pydantic import BaseModel, ConfigDict
from comity.protocol.services import ServiceSettings

class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    loudness: int = 1
    greeter: ServiceSettings = ServiceSettings()
"""
SERVICE = """
from contextlib import contextmanager
from comity.protocol.services import RunningService, served

ENDED = []

@contextmanager
def run(context):
    if not context.settings.greeter.listen:
        yield None
        return
    with served(context, context.settings.greeter, [], lambda server: None) as address:
        yield RunningService(address, {"loudness": context.settings.loudness})
    ENDED.append(address)
"""
VERBS = """
import sys
assert "torch" not in sys.modules

def greet(name: str, *, loud: bool = False) -> None:
    print(f"hello {name}{'!' if loud else ''}")

def words() -> None:
    print("hello")
"""
AUDITS = """
def audit(context):
    return {"session": context.contract.session}
"""


@pytest.fixture
def greeting(install: Install) -> ProtocolDefinition:
    text = DEFINITION.format(name="greeting", package="greetpkg", extensions=EXTENSIONS)
    install("greetpkg", ENTRY, definition=text, extensions=SETTINGS, service=SERVICE, verbs=VERBS, audits=AUDITS)
    return protocol("greeting")


def test_settings_are_the_protocols_and_checked_with_the_nodes(greeting: ProtocolDefinition) -> None:
    config = PartyConfig(protocols={"greeting": {"loudness": 3}})  # type: ignore[arg-type]
    assert config.settings_of(greeting).loudness == 3  # type: ignore[union-attr]
    assert PartyConfig().settings_of(greeting).loudness == 1  # type: ignore[union-attr]
    assert PartyConfig().settings_of(protocol("vote-pool")) is None


@pytest.mark.parametrize(
    ("protocols", "error", "words"),
    [
        ({"greting": {}}, UnknownKey, "did you mean greeting"),
        ({"greeting": {"loudnes": 1}}, UnknownKey, "did you mean loudness"),
        ({"greeting": {"loudness": "very"}}, InvalidValue, "loudness cannot be used"),
        ({"greeting": 1}, InvalidValue, r"write \[protocols.greeting\]"),
        ({"vote-pool": {"a": 1}}, UnknownKey, "has no settings"),
        ({"teacher-votes": {}, "teacher_votes": {}}, InvalidValue, "twice"),
        ({"teacher-votes": {"labls": {}}}, UnknownKey, "did you mean labels"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    greeting: ProtocolDefinition, protocols: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        PartyConfig(protocols=protocols)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_settings_of_a_package_that_does_not_work_are_passed_over(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    for broken in ("extensions", "definition"):
        (tmp_path / "site" / "greetpkg" / f"{broken}.py").write_text("import nothing_like_it")
        forget("greetpkg")
        assert PartyConfig(protocols={"greeting": {"loudness": 3}}).protocols == {}  # type: ignore[arg-type]
    assert [each.name for each in unusable()] == ["greeting"]


def test_settings_without_a_default_are_asked_for(install: Install) -> None:
    text = DEFINITION.format(name="greeting", package="greetpkg", extensions='settings="greetpkg.extensions:Settings"')
    install("greetpkg", ENTRY, definition=text, extensions=SETTINGS.replace("loudness: int = 1", "loudness: int"))
    with pytest.raises(InvalidValue, match=r"protocols.greeting.*loudness") as caught:
        PartyConfig().settings_of(protocol("greeting"))
    assert "\n" not in str(caught.value)


def context(tmp_path: Path, definition: ProtocolDefinition, listen: str, role: str = "wisher") -> ServiceContext:
    config = PartyConfig(protocols={"greeting": {"loudness": 2, "greeter": {"listen": listen}}})  # type: ignore[arg-type]
    return ServiceContext("clinic", role, config.settings_of(definition), Identity("clinic"), tmp_path)


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="")
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10, wait_for_ready=True)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def test_a_service_runs_with_its_node_and_is_drained_with_it(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    services = Services()
    with ExitStack() as stack:
        services.start(stack, "wisher", [greeting], lambda each: context(tmp_path, each, "127.0.0.1:0"))
        address = services.running["greeter"].address
        assert is_serving(address)
        assert services.handles == {"greeter": {"loudness": 2}}
        ended = sys.modules["greetpkg.service"].ENDED
        assert ended == []
    assert ended == [address]


def test_a_service_refuses_whom_its_node_revokes(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    authority = Authority.create()
    clinic, caller = authority.issue("clinic", tmp_path / "clinic"), authority.issue("caller", tmp_path / "caller")
    assert caller.certificate is not None
    mark = fingerprint(load_pem_x509_certificate(caller.certificate.read_bytes()))
    services, servers = Services(), list[NodeServer]()

    def secured(definition: ProtocolDefinition) -> ServiceContext:
        return replace(context(tmp_path, definition, "127.0.0.1:0"), identity=clinic, servers=servers)

    with ExitStack() as stack:
        services.start(stack, "wisher", [greeting], secured)
        names = [("grpc.ssl_target_name_override", "clinic")]
        address, credentials = services.running["greeter"].address, caller.client_credentials("clinic")
        channel = stack.enter_context(grpc.secure_channel(address, credentials, names))
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest(), timeout=10).status
        (server,) = servers
        server.revoke(frozenset({mark}))
        with pytest.raises(grpc.RpcError) as refused:
            check(health_pb2.HealthCheckRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(("listen", "role"), [("", "wisher"), ("127.0.0.1:0", "giver")])
def test_a_service_that_is_not_wanted_does_not_run(
    greeting: ProtocolDefinition, tmp_path: Path, listen: str, role: str
) -> None:
    services = Services()
    with ExitStack() as stack:
        services.start(stack, role, [greeting], lambda each: context(tmp_path, each, listen, role))
        assert services.running == {}


def test_of_two_services_of_one_name_the_first_runs(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    services = Services()
    with ExitStack() as stack, capture_logs() as logs:
        services.start(stack, "wisher", [greeting, greeting], lambda each: context(tmp_path, each, "127.0.0.1:0"))
        assert is_serving(services.running["greeter"].address)
    (line,) = [each for each in logs if each["event"] == "service-unusable"]
    assert (line["service"], line["protocol"]) == ("greeter", "greeting")


def test_a_verb_stays_with_who_has_it(greeting: ProtocolDefinition, install: Install, tmp_path: Path) -> None:
    more = """verbs=(
        Verb("greet", "Takes a verb.", "takerpkg.verbs:take"),
        Verb("words", "Takes a first word.", "takerpkg.verbs:take"),
        Verb("words steal", "Goes beside another's.", "takerpkg.verbs:take"),
        Verb("shout", "Has its own.", "takerpkg.verbs:take"),
        Verb("shout loud", "Would hide it.", "takerpkg.verbs:take"),
    ),"""
    text = DEFINITION.format(name="taking", package="takerpkg", extensions=more)
    verbs = "def take() -> None:\n    print('taken')\n"
    install("takerpkg", "[comity.protocols]\ntaking = takerpkg.definition:PROTOCOL\n", definition=text, verbs=verbs)
    site = tmp_path / "site"
    assert comity(site, "greet", "you").stdout == "hello you\n"
    assert comity(site, "words", "list").stdout == "hello\n"
    assert comity(site, "shout").stdout == "taken\n"
    lines = comity(site, "--help").stderr.splitlines()
    left = {line.partition(" is left out")[0].removeprefix("comity: the verb ") for line in lines}
    assert left == {
        "run of greeting",
        "greet of taking",
        "words of taking",
        "words steal of taking",
        "shout loud of taking",
    }


def test_a_service_without_tls_stays_on_loopback(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    settings = ServiceSettings(listen="0.0.0.0:0")
    with (
        pytest.raises(InvalidValue, match="plaintext is for loopback only"),
        served(context(tmp_path, greeting, ""), settings, [], lambda server: None),
    ):
        pass


def comity(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from comity.cli.main import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(site), "PATH": "", "COLUMNS": "120"},
    )


def test_verbs_are_listed_and_run(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    site = tmp_path / "site"
    listed = comity(site, "--help")
    assert listed.returncode == 0
    assert "Greets somebody." in listed.stdout
    assert "Takes a name" not in listed.stdout
    (line,) = listed.stderr.splitlines()
    assert "the verb run of greeting is left out: comity itself has one" in line
    assert comity(site, "greet", "you", "--loud").stdout == "hello you!\n"
    assert comity(site, "words", "list").stdout == "hello\n"
    explained = comity(site, "greet", "--help").stdout
    assert "--loud" in explained
    assert comity(site, "greet").returncode == 2


def keep_a_session(state: Path, definition: ProtocolDefinition) -> None:
    state.mkdir()
    contract = Contract(
        protocol=definition.name,
        version=definition.version,
        session="s-1",
        seed=0,
        rounds=1,
        models={},
        task=classification((4,), 2),
        initiator="clinic",
        acceptors=("hospital",),
        egress=definition.egress,
        terms=Terms(),
    )
    own = Membership(party="clinic", role="wisher", samples=0, receipt_key="0" * 64)
    with closing(SqlStore(store_url(state))) as store:
        store.save(stored(contract, own))


def test_an_audit_is_the_protocols(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    state = tmp_path / "state"
    keep_a_session(state, greeting)
    found = json.loads(comity(tmp_path / "site", "audit", "names", "s-1", "--state", str(state), "--json").stdout)
    assert found == {"session": "s-1", "audit": "names", "found": {"session": "s-1"}}
    with pytest.raises(InvalidValue, match="greeting has no such audit: expected names"):
        run_audit("name", "s-1", state, as_json=True)
    with pytest.raises(InvalidValue, match="no such session"):
        run_audit("names", "s-2", state, as_json=True)
    with pytest.raises(MissingFile, match="no node's state here"):
        run_audit("names", "s-1", tmp_path, as_json=True)


def test_protocols_of_this_project_that_have_verbs_are_named_where_help_looks() -> None:
    named = {point.name for point in entry_points(group="comity.verbs") if point.module.startswith("comity.")}
    own = [each for each in protocols() if each.implementation.startswith("comity.")]
    assert named == {each.name for each in own if each.extensions.verbs}


def test_audits_are_listed(greeting: ProtocolDefinition, tmp_path: Path) -> None:
    listed = json.loads(comity(tmp_path / "site", "audit", "--json").stdout)
    assert {"name": "names", "protocol": "greeting", "finds": "Which names were said."} in listed["audits"]

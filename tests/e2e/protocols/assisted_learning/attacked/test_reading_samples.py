"""A trusted learner reads a provider's samples off what its daemon sends: what it gets of them, and what the guard leaves.

Three daemons with the same 1,347 digits: under `public` the attacks work; under `guarded` the contracts are refused; and with
every limit of policy off, nothing that leaves shows a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from comity.protocols.assisted_learning.definition import PROTOCOL
from comity.tensors import State
from comity.transport.peer_connection import PeerConnection
from comity.wire.v1 import assisted_learning_pb2 as pb
from tests.e2e.conftest import Site
from tests.e2e.hostile.parties import NUMBERS, PATIENT, Play, Target, refusal
from tests.e2e.protocols.assisted_learning.attacked.attacks import Attack, agreed
from tests.privacy.attacks import digits, neighbours, rows_of

PRIVACY: dict[str, dict[str, Any]] = {
    "public": {"preset": "public"},
    "guarded": {"preset": "guarded"},
    "limits off": {
        "preset": "guarded",
        "width_factor": 0.0,
        "min_distinct": 1,
        "max_batch_share": 1.0,
        "max_learning_rate": {"sgd": 1e30},
    },
}
PATIENCE_S = 200.0
UNITS = 1024
SCRIPT = """\
[session]
protocol = "assisted_learning"
id = "{id}"
acceptors = ["{acceptor}"]
rounds = {rounds}
seed = 3
model = MODEL

[session.terms]
optimizer = "sgd"
learning_rate = RATE
batch_size = BATCH
iterations = ITERATIONS
sampling_period = PERIOD
evaluation_batch_size = 256
"""


@dataclass(frozen=True)
class Reading(Play):
    """A session in which the provider trains, as Mallory has it.

    Attributes:
        privacy: How the provider looks after its samples.
    """

    privacy: str = "guarded"

    def section(self, role: str, **policy: Any) -> dict[str, Any]:
        """See `Play.section`: the provider has all digits, Mallory a few."""
        found = super().section(role, **policy)
        few = {"source": "digits", "per_class": 1}
        return found | {
            "data": {"source": "digits"} if role == "provider" else few,
            "privacy": PRIVACY[self.privacy] if role == "provider" else {"preset": "public"},
        }


def reading(privacy: str, *, model: str, rate: float, batch: int, period: int, sends: int) -> Reading:
    """The session of an attack, of which the provider makes nearly all iterations."""
    text = SCRIPT
    # Mallory's ten samples take their share.
    iterations = round((sends * period + 1) * 1357 / 1347) + 1
    for name, value in (
        ("MODEL", model),
        ("RATE", rate),
        ("BATCH", batch),
        ("ITERATIONS", iterations),
        ("PERIOD", period),
    ):
        text = text.replace(name, str(value))
    return Reading(PROTOCOL.name, text, "learner", "provider", privacy)


@pytest.fixture(scope="module")
def victims(site: Site) -> dict[str, Target]:
    """The providers, by how they look after their samples."""
    nodes = {}
    for privacy in PRIVACY:
        play = reading(privacy, model='{{ name = "mlp" }}', rate=1, batch=1, period=1, sends=1)
        config = play.section("provider", parties=["mallory"], max_rounds=50) | {"listen": "127.0.0.1:0"}
        del config["role"]
        home = Site(site.folder / privacy.replace(" ", "-"), site.authority, site.stack)
        identities = [home.identity(each) for each in ("learner", "mallory", "stranger")]
        nodes[privacy] = home.launch("provider", "provider", **config), identities
    return {privacy: Target(node, node.wait_ready(), *them) for privacy, (node, them) in nodes.items()}


@contextmanager
def session(victim: Target, play: Reading) -> Iterator[Attack]:
    """A session of Mallory's with a provider."""
    with (
        PeerConnection(victim.mallory, "provider", victim.address, PATIENT) as line,
        agreed(line, f"r-{next(NUMBERS)}", play) as attack,
    ):
        yield attack


def models(attack: Attack, start: State, *, is_refused: bool = False) -> list[State]:
    """What a round of training gives from a crafted start, as far as the provider sends it."""
    blob = attack.layout.pack({name: start[name] for name in attack.state})
    assert attack.put(blob.data).complete
    own = attack.party.membership("learner", attack.contract)
    attack.offer(attack.checkpoint(blob, sum=1.0, count=own.samples))
    attack.close()
    found, metadata = [start], attack.connection._metadata

    def follow() -> None:
        watch = pb.WatchResultsRequest(round=1)
        for result in attack.stub.WatchResults(watch, metadata=metadata, timeout=PATIENCE_S):
            if result.HasField("checkpoint") and result.checkpoint.index:
                blob = attack.connection.get(result.checkpoint.blob.digest, attack.layout.size, attack.layout.verify)
                found.append({name: each.clone() for name, each in attack.layout.view(blob.data).items()})

    if is_refused:
        assert "give samples away" in str(refusal(follow))
    else:
        follow()
    return found


def zero(attack: Attack) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in attack.state.items()}


def single_steps(privacy: str) -> Reading:
    model = '{{ name = "mlp", options = {{ hidden_layers = 0 }} }}'
    return reading(privacy, model=model, rate=1e-6, batch=1, period=1, sends=60)


def imprint(privacy: str) -> Reading:
    model = f'{{{{ name = "mlp", options = {{{{ hidden = {UNITS} }}}} }}}}'
    return reading(privacy, model=model, rate=1e16, batch=256, period=1, sends=1)


def beside_a_pass(privacy: str, batch: int = 245, period: int = 11) -> Reading:
    """p3: 11 steps of 245 are two passes over 1,347 samples and one more."""
    model = '{{ name = "mlp", options = {{ hidden_layers = 0 }} }}'
    return reading(privacy, model=model, rate=1e-12, batch=batch, period=period, sends=3)


@pytest.mark.parametrize("play", [single_steps, imprint])
def test_a_guarded_provider_refuses_such_contracts(victims: dict[str, Target], play: Callable[[str], Reading]) -> None:
    victim = victims["guarded"]
    with PeerConnection(victim.mallory, "provider", victim.address, PATIENT) as line:
        error = refusal(lambda: agreed(line, f"r-{next(NUMBERS)}", play("guarded")).__enter__())
    assert "privacy." in str(error)
    victim.require_alive()


@pytest.mark.parametrize(("privacy", "least", "most"), [("public", 30, 60), ("limits off", 0, 0)])
def test_steps_of_one_sample(victims: dict[str, Target], privacy: str, least: int, most: int) -> None:
    with session(victims[privacy], single_steps(privacy)) as attack:
        sent = models(attack, zero(attack))
    assert len(sent) > 50
    assert least <= len(digits().recovered(rows_of(sent, "1.weight"))) <= most


@pytest.mark.parametrize(("privacy", "least", "most"), [("public", 150, 256), ("limits off", 0, 0)])
def test_a_crafted_model(victims: dict[str, Target], privacy: str, least: int, most: int) -> None:
    victim, crafted = digits(), digits().imprint(UNITS)
    with session(victims[privacy], imprint(privacy)) as attack:
        sent = models(attack, crafted, is_refused=privacy != "public")
    assert len(sent) == 1 + (privacy == "public")
    reads = neighbours(sent, "1.weight") if len(sent) > 1 else torch.empty(0, victim.size)
    assert least <= len(victim.recovered(reads)) <= most
    victims[privacy].require_alive()


@pytest.mark.parametrize("privacy", ["public", "limits off"])
def test_steps_that_end_beside_a_pass(victims: dict[str, Target], privacy: str) -> None:
    victim = digits()
    with session(victims[privacy], beside_a_pass(privacy, batch=1347, period=1)) as attack:
        whole = next(iter(rows_of(models(attack, zero(attack))[:2], "1.weight").split(10)))
    with session(victims[privacy], beside_a_pass(privacy)) as attack:
        sent = models(attack, zero(attack))
    assert len(sent) == 4
    for change in rows_of(sent, "1.weight").split(10):
        # Two passes of means over 245, less what two passes over all come to.
        assert not victim.recovered(change * 245 - 2 * whole * 1347)

"""A script of the protocol whose one model has no name of its own."""

from __future__ import annotations

import pytest

from comity.errors import InvalidValue, MalformedMessage
from comity.node.config import PartyConfig
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import parse_script
from comity.protocols.assisted_learning.studies.demo import script as demo_script
from comity.protocols.assisted_learning.terms import AssistedLearningTerms
from comity.store.memory_store import MemoryStore
from comity.store.secrets import GivenSecrets

SESSION = """
[session]
protocol = "assisted_learning"
acceptors = ["hospital"]
rounds = 3

[session.model]
name = "mlp"
options = { hidden = 8 }

[session.terms]
learning_rate = 0.01
"""


def clinic() -> LocalParty:
    config = PartyConfig.model_validate({"data": {"source": "digits", "per_class": 2}})
    return LocalParty("clinic", config, GivenSecrets(b"secret"), MemoryStore())


def test_a_script_may_name_its_models() -> None:
    named = SESSION.replace("[session.model]", "[session.models.model]")
    contracts = [draft_contract(parse_script(text), clinic(), "s-9")[0] for text in (SESSION, named)]
    assert contracts[0].hash == contracts[1].hash
    for text, said in (
        (named + '[session.model]\nname = "mlp"', "session.model is given twice"),
        (SESSION + '[session.models.other]\nname = "mlp"', "expected model, received .*other"),
        (SESSION.replace("[session.model]", "[session.models.other]"), "session.models.model is missing"),
    ):
        with pytest.raises((InvalidValue, MalformedMessage), match=said):
            draft_contract(parse_script(text), clinic(), "s-9")


def test_the_demos_script_is_one() -> None:
    script = parse_script(demo_script(3))
    assert set(script.party) == {"learner", "provider"}
    assert script.session.seed == 3
    AssistedLearningTerms.model_validate(script.session.terms)

"""What an operator asks of a session by name: only sessions that have something to do with it answer."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from comity.errors import InvalidValue
from comity.node.control_messages import fields_of
from tests.cases import plain
from tests.e2e.network import network


def test_a_session_that_is_over_and_one_that_is_not_there_have_nothing_to_ask() -> None:
    script = plain("federated_count").script
    with TemporaryDirectory(prefix="e2e-") as name, network(script, Path(name)) as found:
        found.run()
        (asking,) = [found.clients[each] for each in script.party if each not in script.session.acceptors]
        for session, state in ((str(script.session.id), "finished"), ("s-none", "unknown")):
            with pytest.raises(InvalidValue, match=f"nothing to ask: expected .* received {state}"):
                asking.call(session, "anything", number=1)


@pytest.mark.parametrize("text", ["[1]", "{", "3", '"a"'])
def test_fields_are_a_json_object(text: str) -> None:
    assert fields_of("") == {}
    with pytest.raises(InvalidValue, match="JSON object"):
        fields_of(text)

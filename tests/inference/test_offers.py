"""What can be asked, by the session's name and by others that stand for the latest of several."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack

import pytest
from torch import Tensor

from comity.errors import UnknownSession
from comity.inference.offers import Answer, Offer, Offers, Parameters, TensorSpec


def offer(name: str) -> Offer:
    def predict(inputs: Tensor, parameters: Parameters, within_s: float | None) -> Future[Answer]:
        raise NotImplementedError

    return Offer(name, TensorSpec("inputs", "float32", (4,)), (), predict)


def test_another_name_stands_for_the_session_that_began_last() -> None:
    offers = Offers({"digits": "digits-*", "fraud": "fraud-*"})
    with ExitStack() as stack:
        stack.enter_context(offers.offered(offer("digits-2")))
        with offers.offered(offer("digits-1")):
            assert offers.find("digits").name == "digits-1"
            assert offers.find("digits-2").name == "digits-2"
            assert offers.names() == ["digits", "digits-1", "digits-2"]
        assert offers.find("digits").name == "digits-2"
        for name in ("fraud", "digits-*", "digits-1"):
            with pytest.raises(UnknownSession, match="no model of this name"):
                offers.find(name)


def test_a_sessions_own_name_comes_first() -> None:
    offers = Offers({"digits-1": "digits-2"})
    with offers.offered(offer("digits-1")), offers.offered(offer("digits-2")):
        assert offers.find("digits-1").name == "digits-1"

"""A client that goes on serving its applications: who answers, what is charged, and what happens when the server is away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from comity.errors import MalformedMessage, NonFiniteValue, UnknownSession
from comity.node.control_client import ControlClient
from comity.node.sessions.script import parse_script, session_text
from comity.transport.status import from_rpc_error
from tests.e2e.pages import ROOT
from tests.e2e.protocols.learning_to_help.serving import (
    DIGITS,
    SESSION,
    Serving,
    reasons,
    request,
    said,
    serving,
    serving_script,
)

TRY_AGAIN = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}


@pytest.fixture(scope="module")
def pair(site: Any) -> Iterator[Serving]:
    with serving(site.folder, serving_script()) as served:
        yield served


def test_each_input_is_answered_by_whom_the_rejector_names(pair: Serving) -> None:
    answer = pair.application.infer(DIGITS[:64])
    outputs = said(answer)
    assert outputs["probability"].shape == (64, 10)
    assert np.allclose(outputs["probability"].sum(axis=1), 1, atol=1e-5)
    assert outputs["remote"].any()
    assert not outputs["remote"].all()
    decisions = answer.parameters["decision"].string_param.split(",")
    assert [each == "REMOTE" for each in decisions] == outputs["remote"].tolist()
    assert [each == "" for each in reasons(answer)] == outputs["remote"].tolist()
    assert (answer.id, answer.model_name) == ("7", SESSION)


def test_a_caller_may_say_who_answers(pair: Serving) -> None:
    at_home = said(pair.application.infer(DIGITS[:20], route="local"))
    asked = said(pair.application.infer(DIGITS[:20], route="remote"))
    assert not at_home["remote"].any()
    assert asked["remote"].all()
    freely = said(pair.application.infer(DIGITS[:20]))
    assert (freely["class"] == np.where(freely["remote"], asked["class"], at_home["class"])).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda each: setattr(each, "model_name", "another"), UnknownSession),
        (lambda each: each.inputs[0].shape.__setitem__(2, 7), MalformedMessage),
        (lambda each: setattr(each.inputs[0], "name", "pictures"), MalformedMessage),
        (lambda each: each.raw_input_contents.__setitem__(0, b"abc"), MalformedMessage),
        (lambda each: each.inputs[0].contents.fp32_contents.append(1), MalformedMessage),
        (lambda each: setattr(each.inputs[0], "datatype", "BYTES"), MalformedMessage),
        (lambda each: setattr(each.parameters["route"], "string_param", "home"), MalformedMessage),
        (lambda each: setattr(each.parameters["timeout"], "int64_param", -1), MalformedMessage),
        (lambda each: each.outputs.add(name="nothing"), MalformedMessage),
        (
            lambda each: each.raw_input_contents.__setitem__(0, np.full((2, 1, 8, 8), np.nan, np.float32).tobytes()),
            NonFiniteValue,
        ),
    ],
    ids=["model", "shape", "name", "length", "two forms", "datatype", "route", "timeout", "output", "NaN"],
)
def test_what_does_not_fit_is_refused(pair: Serving, change: Any, error: type[Exception]) -> None:
    asked = request(DIGITS[:2])
    change(asked)
    with pytest.raises(grpc.RpcError) as failed:
        pair.application._method("ModelInfer")(asked, timeout=60)
    assert type(from_rpc_error(failed.value)) is error


def test_the_node_describes_what_it_predicts(pair: Serving) -> None:
    assert pair.application.call("ServerLive").live
    assert pair.application.call("ServerReady").ready
    assert pair.application.call("ServerMetadata").name == "comity"
    described = pair.application.call("ModelMetadata", name=SESSION)
    assert [(each.name, list(each.shape)) for each in described.inputs] == [("inputs", [-1, 1, 8, 8])]
    assert [each.name for each in described.outputs] == ["class", "probability", "confidence", "remote"]


def test_the_shell_says_what_an_application_is_told(pair: Serving, typed: Any, tmp_path: Path) -> None:
    config = pair.client.folder / "node.toml"
    found = typed.json("predict", "digits", "--session", SESSION, "--config", config, cwd=tmp_path)["predictions"]
    answer = pair.application.infer(DIGITS[[int(each["id"]) for each in found]])
    outputs, decisions = said(answer), answer.parameters["decision"].string_param.split(",")
    assert len(found) > 100
    assert {each["decision"] for each in found} == {"LOCAL", "REMOTE"}
    # Whom a tie goes to is drawn, and here most are ties: those that went to the same are said the same.
    same = [place for place, each in enumerate(found) if each["decision"] == decisions[place]]
    assert len(same) > len(found) / 3
    assert [int(found[place]["class"]) for place in same] == outputs["class"][same].tolist()


def test_the_example_of_an_application_is_answered(pair: Serving) -> None:
    example = ROOT / "examples" / "applications" / "classify.py"
    typed = [sys.executable, str(example), str(pair.client.folder), SESSION]
    done = subprocess.run(typed, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 25
    assert {line.split(": ")[1].split()[1] for line in lines[:-1]} == {"client", "server"}
    assert lines[-1].endswith("right")


def test_a_thousand_callers_at_once_are_all_answered_or_told_to_try_again(pair: Serving) -> None:
    waiting, answers = list(range(1000)), list[Any]()
    # Whoever is told to try again, by the node or by its own end of a line that broke, does.
    for pause_s in (0.5, 1.0, 2.0, *[4.0] * 20):
        begun = {each: pair.application.begin(DIGITS[each : each + 1], route="local") for each in waiting}
        failures = {each: error for each, call in begun.items() if (error := call.exception()) is not None}
        assert all(error.code() in TRY_AGAIN for error in failures.values()), list(failures.values())[:3]
        answers += [call.result() for each, call in begun.items() if each not in failures]
        waiting = list(failures)
        if not waiting:
            break
        time.sleep(pause_s)
    assert not waiting
    assert all(len(said(each)["class"]) == 1 for each in answers)


def test_it_ends_well_and_each_answer_is_charged_once(own_site: Any, typed: Any, tmp_path: Path) -> None:
    with serving(own_site.folder, serving_script(requests=500)) as pair:
        for begin in range(0, 500, 100):
            last = pair.application.infer(DIGITS[begin : begin + 100], route="remote")
        # What was bought is spent; the client's model answers, and says why.
        assert reasons(last) == ["spent"] * 100
        result = pair.end()
        served = result["metrics"]["served"]
        assert served["predictions"] == served["asked"] + served["spent"] == 500
        assert result["metrics"]["requests"] == 500
        for node in (pair.client, pair.server):
            assert typed.json("ledger", "verify", "--state", node.folder / "state", cwd=tmp_path)["verified"]
        with pytest.raises(grpc.RpcError):
            pair.application.infer(DIGITS[:1])


def test_a_server_that_is_killed_and_comes_back_charges_each_answer_once(
    own_site: Any, typed: Any, tmp_path: Path, wait_until: Any
) -> None:
    with serving(own_site.folder, serving_script(requests=5000), "\n[retry]\nretry_s = 60.0\n") as pair:
        answered, stopped = Counter[str](), threading.Event()

        def ask() -> None:
            number = 0
            while not stopped.is_set():
                why = reasons(pair.application.infer(DIGITS[number % 100 : number % 100 + 1], 2.0, "remote"))
                answered[why[0] or "server"] += 1
                number += 1

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            wait_until(lambda: answered["server"] > 20, "the server answers")
            pair.server.kill()
            wait_until(lambda: answered["away"] > 20, "the client answers by itself", deadline_s=60)
            before = answered["server"]
            pair.server.start()
            pair.server.wait_ready()
            wait_until(lambda: answered["server"] > before + 20, "the server answers again", deadline_s=60)
        finally:
            stopped.set()
            asking.join()
        result = pair.end()
        assert set(answered) <= {"server", "away", "late", "busy"}
        # What the server answered as it was killed may not have come; what came is charged, and once.
        asked = result["metrics"]["requests"]
        in_rounds = asked - answered["server"]
        assert result["metrics"]["served"]["asked"] == answered["server"]
        assert in_rounds >= 0
        assert asked <= 5000
        for node in (pair.client, pair.server):
            assert typed.json("ledger", "verify", "--state", node.folder / "state", cwd=tmp_path)["verified"]
        exported = typed("ledger", "export", "--state", pair.server.folder / "state", cwd=tmp_path)
        (tmp_path / "theirs.json").write_text(exported.stdout)
        compared = typed("ledger", "compare", "theirs.json", "--state", pair.client.folder / "state", cwd=tmp_path)
        assert compared.returncode == 0, compared.stdout + compared.stderr


@pytest.mark.slow
def test_a_new_session_takes_over_while_both_are_on(own_site: Any, wait_until: Any) -> None:
    """An application that asks by another name than a session's notices nothing but the new version."""
    names = 'compare = false, predictions = { names = { digits = "demo-*" } }'
    text = serving_script().replace("compare = false", names)
    with serving(own_site.folder, text) as pair:
        versions, stopped = list[str](), threading.Event()

        def ask() -> None:
            while not stopped.is_set():
                versions.append(pair.application.infer(DIGITS[:4], model="digits").model_version)

        with ThreadPoolExecutor(1) as threads, ControlClient(pair.client.control_url) as control:
            asking = threads.submit(ask)
            try:
                second = parse_script(text.replace('id = "demo-3"', 'id = "demo-4"'))
                assert control.run(session_text(second)) == "demo-4"
                wait_until(lambda: asking.done() or "demo-4" in versions, "the new session answers", deadline_s=120)
                pair.end()
                seen = len(versions)
                wait_until(lambda: asking.done() or len(versions) > seen + 10, "it answers alone", deadline_s=120)
            finally:
                stopped.set()
            asking.result()
        assert versions == sorted(versions)
        assert {*versions} == {"demo-3", "demo-4"}
        assert pair.application.call("ModelMetadata", name="digits").versions == ["demo-4"]


def test_a_client_that_is_killed_goes_on_serving(own_site: Any) -> None:
    with serving(own_site.folder, serving_script(requests=1000)) as pair:
        assert said(pair.application.infer(DIGITS[:10], route="remote"))["remote"].all()
        pair.client.kill()
        pair.client.start()
        pair.client.wait_ready()
        pair.wait_until_it_predicts()
        assert said(pair.application.infer(DIGITS[:10], route="remote"))["remote"].all()
        result = pair.end()
        assert result["metrics"]["served"]["asked"] >= 10
        assert result["metrics"]["requests"] >= 20

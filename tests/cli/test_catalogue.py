"""What there is: protocols, models, data, tasks; and names in any spelling."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import structlog

from comity import version
from comity.errors import InvalidValue
from comity.node.logs import configure_logs
from comity.suggestions import near
from comity.transport.addresses import split_address


@pytest.mark.parametrize(
    ("verb", "name", "fields"),
    [
        (
            "protocols",
            "federated-count",
            {"initiator", "acceptor", "crosses", "models", "tasks", "terms", "settings"},
        ),
        ("models", "resnet18-cifar", {"what", "options"}),
        ("data", "imagefolder:<dir>", {"what", "settings"}),
        ("tasks", "classification", {"what", "head"}),
    ],
)
def test_what_there_is(typed: Callable[..., Any], verb: str, name: str, fields: set[str]) -> None:
    rows = json.loads(typed(verb, "--json").out)[verb]
    one = next(row for row in rows if row["name"] == name)
    assert set(one) - {"version"} == {"name", "package", *fields}
    assert one["package"] == ("federated-count" if verb == "protocols" else "comity")
    spelled = name.partition(":")[0].replace("-", "_").upper()
    assert json.loads(typed(verb, spelled, "--json").out)[verb] == [one]
    assert name in typed(verb).out
    assert name in typed(verb, spelled).out
    wrong = typed(verb, name.partition(":")[0][:-1])
    assert wrong.code == 2
    assert f"did you mean {name.partition(':')[0]}?" in wrong.error
    assert "did you mean" not in typed(verb, "zzzzzz").error


def test_terms_are_said_as_a_script_says_them(typed: Callable[..., Any]) -> None:
    lines = typed("protocols", "teacher-votes").out.splitlines()
    assert "  [session.terms] in a script:" in lines
    # Each with its type, its default and what it is.
    (queries,) = [line for line in lines if line.startswith("    queries")]
    assert "(int, " in queries
    assert queries.endswith(".")
    # No word of Python's.
    listed = typed("protocols").out + "".join(typed("data", each).out for each in ("npz", "gymnasium", "digits"))
    assert not [word for word in ("Literal", "NoneType", "Optional", "Union", "pydantic") if word in listed]


def test_the_version_is_an_option(typed: Callable[..., Any]) -> None:
    done = typed("--version")
    assert (done.code, done.out) == (0, f"{version()}\n")


def test_a_mistake_in_the_command_line_exits_with_2(typed: Callable[..., Any]) -> None:
    assert typed("sesions").code == typed("show", "--nod", ".").code == typed("demo", "--seed", "x").code == 2


def test_what_is_printed_can_be_pasted(typed: Callable[..., Any], tmp_path: Path) -> None:
    made = typed(
        "init", "student", tmp_path / "our clinic", "--party", "clinic", "--peer", "hospital=127.0.0.1:1", "--json"
    )
    steps = json.loads(made.out)["next"]
    assert f"comity check --node '{tmp_path}/our clinic'" in steps
    assert typed("sessions", "--node", tmp_path / "our clinic").code == 2


def test_suggestions_are_near_whatever_the_case() -> None:
    assert near("Federated_Coun", ["federated-count", "x"]) == "federated-count"
    assert near("zzz", ["federated-count"]) is None


def test_an_address_of_version_6_without_brackets_is_told_how_to_write_it() -> None:
    assert split_address("[::1]:5500") == ("::1", 5500)
    with pytest.raises(InvalidValue, match=r"write \[::1\]:5500"):
        split_address("::1:5500")


def test_a_traceback_of_a_node_goes_into_a_file_and_not_into_its_log(tmp_path: Path) -> None:
    before = structlog.get_config()
    log = io.StringIO()
    try:
        with redirect_stderr(log):
            configure_logs("info", tmp_path)
            try:
                int("no number")
            except ValueError as error:
                structlog.get_logger().error("call-failed", exc_info=error)
    finally:
        structlog.configure(**before)
    told = json.loads(log.getvalue())
    assert told["unexpected"].startswith("ValueError: invalid literal")
    assert "Traceback" not in log.getvalue()
    assert "test_catalogue.py" in Path(told["crash_file"]).read_text(encoding="utf-8")
    assert Path(told["crash_file"]).parent == tmp_path

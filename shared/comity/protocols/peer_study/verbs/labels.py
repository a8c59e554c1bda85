"""A session's labels, as its node has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.node.control_client import ControlClient
from comity.protocols.peer_study.pages import pages


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that people are to label.

    Attributes:
        name: Its id.
        digest: Of what it was when it was chosen.
        data: A PNG file, or a text; nothing for a row.
        row: The numbers of a row.
        guess: What the model says it is, and how likely; None where nobody asked.
    """

    name: str
    digest: str
    data: bytes = b""
    row: tuple[float, ...] = ()
    guess: tuple[int | str, float] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What people are to do.

    Attributes:
        session: The session.
        step: The labelling step.
        kind: What a sample is: `image`, `text` or `table`.
        classes: Names of the classes, in order.
        columns: Names of a row's numbers.
        guidelines: What people are told.
        samples: What is to be labelled.
        mask_size: Height and width of the masks that are asked for; None where classes are.
    """

    session: str
    step: int
    kind: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    guidelines: str
    samples: tuple[Sample, ...]
    mask_size: tuple[int, int] | None = None


class Labels:
    """The labels of a session at a node that runs.

    Args:
        control: The node.
        session: The session; empty for the one that waits for them, where there is one.
        reason: What it waits for.

    Raises:
        InvalidValue: None waits for that, or several do.
    """

    def __init__(self, control: ControlClient, session: str = "", *, reason: str = "labels") -> None:
        self._control = control
        self.session = session or _waiting(control, reason)
        self._shown: dict[str, Any] = {}

    def consents(self) -> dict[str, Any]:
        """What was decided of which sample, and what waits."""
        while True:
            pages = [*self._pages("consents.show")]
            # A round may end meanwhile.
            if all(each["round"] == pages[0]["round"] for each in pages):
                found = {name: [each for one in pages for each in one[name]] for name in ("left", "decided")}
                found["decided"].sort(key=lambda each: each["at"])
                return {"session": self.session, **found}

    def decide(self, annotator: str, samples: Sequence[str], *, is_given: bool) -> dict[str, Any]:
        """Releases samples, or withholds them: all that are named, or none. Returns `consents` of afterwards."""
        self._tell("consents.decide", "samples", [*samples], annotator=annotator, is_given=is_given)
        return self.consents()

    def show(self) -> dict[str, Any]:
        """What is to be labelled, and what was said of it; read again where it is another than before."""
        while True:
            known = self._shown
            shown = self._control.call(self.session, "labels.show", known=known.get("version"))[0]
            if known and shown["version"] == known["version"]:
                return known
            pages = [*self._pages("labels.samples")]
            # A step may end meanwhile.
            if all(page["step"] == shown["step"] for page in pages):
                self._shown = shown | {"samples": [each for page in pages for each in page["samples"]]}
                return self._shown

    def history(self) -> list[dict[str, Any]]:
        """Who said what of which sample in the session, as far as it was handed in."""
        return [each for page in self._pages("labels.history") for each in page["history"]]

    def _pages(self, call: str) -> Iterator[dict[str, Any]]:
        begin: int | None = 0
        while begin is not None:
            page = self._control.call(self.session, call, begin=begin)[0]
            yield page
            begin = page["next"]

    def sample(self, name: str) -> tuple[dict[str, Any], bytes]:
        """A sample: its kind and the numbers of a row; and its picture or text."""
        return self._control.call(self.session, "labels.sample", sample=name)

    def task(self, *, guess: bool = False) -> Task:
        """What people are to do, with the samples themselves.

        Args:
            guess: Whether the model is asked what it takes the samples for.

        Raises:
            InvalidValue: Nothing is to be labelled now.
        """
        shown = self.show()
        if shown["step"] is None:
            raise InvalidValue(
                "nothing is to be labelled now",
                expected="a session that waits for labels",
                received=f"session {self.session}, which does not",
                action="wait until comity show says that it does",
            )
        guesses: dict[str, tuple[int | str, float]] = {}
        if guess:
            answer = [each for page in self._pages("labels.guesses") for each in page["guesses"]]
            guesses = {each["sample"]: (each["label"], each["score"]) for each in answer}
        samples = []
        for each in shown["samples"]:
            if not each["is_settled"]:
                name = each["sample"]
                fields, data = self.sample(name)
                samples.append(Sample(name, each["digest"], data, tuple(fields["row"]), guesses.get(name)))
        classes, columns = tuple(shown["classes"]), tuple(shown["columns"])
        size = None if shown["mask_size"] is None else (shown["mask_size"][0], shown["mask_size"][1])
        return Task(
            self.session, shown["step"], shown["kind"], classes, columns, shown["guidelines"], tuple(samples), size
        )

    def say(self, annotator: str, said: Sequence[Mapping[str, Json]], *, is_final: bool = True) -> dict[str, Any]:
        """Tells the node what somebody says of samples: all of it counts, or nothing.

        Raises:
            InvalidValue: A sample is there twice, or the node does not take something.
        """
        twice = [sample for sample, count in Counter(str(each.get("sample")) for each in said).items() if count > 1]
        if twice:
            raise InvalidValue(
                f"sample {twice[0][:100]} has several labels of {annotator}",
                expected="one",
                received=f"{len(twice)} samples with more",
                action="remove all but one of each",
            )
        told = [{**each} for each in said]
        answers = self._tell("labels.say", "said", told, annotator=annotator, is_final=is_final)
        counted = {name: sum(each[name] for each in answers) for name in ("taken", "known")}
        return answers[-1] | counted

    def _tell(self, call: str, name: str, items: Sequence[Json], **fields: Json) -> list[dict[str, Any]]:
        """Tells the node of many samples: of all, or, where something is wrong with one, of none."""
        parts = [*pages(items)]
        if len(parts) > 1:
            for part in parts:
                self._control.call(self.session, call, **{name: part}, check_only=True, **fields)
        return [self._control.call(self.session, call, **{name: part}, **fields)[0] for part in parts]

    def take_back(self, annotator: str, sample: str) -> dict[str, Any]:
        """Takes back what somebody said of a sample, and has not handed in."""
        return self._control.call(self.session, "labels.take_back", annotator=annotator, sample=sample)[0]

    def hand_in(self, annotator: str) -> dict[str, Any]:
        """Hands in all that somebody said."""
        return self._control.call(self.session, "labels.hand_in", annotator=annotator)[0]


def _waiting(control: ControlClient, reason: str) -> str:
    """The one session that waits for something."""
    found = [each.session for each in control.sessions() if any(wait.reason == reason for wait in each.waits)]
    if len(found) == 1:
        return found[0]
    raise InvalidValue(
        "it is not clear which session is meant",
        expected=f"one that waits for {reason}",
        received=", ".join(found) or "none",
        action="name one" if found else "wait until comity sessions shows that one does",
    )


def class_number(said: str, classes: Sequence[str], sample: str) -> int:
    """The number of a class, of its name, or else of its number.

    Args:
        said: What was written.
        classes: Names of the classes, in order.
        sample: Of which sample, for errors.

    Raises:
        InvalidValue: There is no such class.
    """
    if said in classes:
        return classes.index(said)
    alike = [number for number, name in enumerate(classes) if name.casefold() == said.casefold()]
    if len(alike) == 1:
        return alike[0]
    # Spreadsheets write 3 as 3.0.
    number = said.removesuffix(".0")
    if number in classes:
        return classes.index(number)
    if number.isascii() and number.isdigit() and int(number[:9]) < len(classes) and not _are_numbers(classes):
        return int(number)
    raise InvalidValue(
        f"the label of sample {sample[:100]} is no class",
        expected=", ".join(classes)[:300],
        received=said[:100],
        action="write the name of a class",
    )


def _are_numbers(classes: Iterable[str]) -> bool:
    return all(each.isdigit() for each in classes)

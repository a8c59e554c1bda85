"""What numbers mean: taken from data into a task's description, and compared with what a contract says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from comity.contract import ASPECTS, Aspect, HeadSpec, InputSpec, TaskSpec
from comity.data.classes import numbers
from comity.data.meaning import UNSAID, Meaning

_LONGEST = 400
"""Characters of a list in an error."""
_BY_COLUMN = {
    what: f"bring the columns into the contract's order and under its names in node.toml: [data.table] {setting}"
    for what, setting in (("feature", "columns"), ("target", "target"), ("label", "target"))
}
_DIGEST = re.compile(r"#([0-9a-f]{8}):([0-9a-f]{24})")


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a party means otherwise than a contract.

    Attributes:
        what: What it is, with both sides, as the beginning of a sentence.
        wanted: All of it, as the contract has it.
        own: All of it, as the party has it.
        action: What the party can do about it.
    """

    what: str
    wanted: str
    own: str
    action: str


def with_meaning(task: TaskSpec, meaning: Meaning) -> TaskSpec:
    """A task with what its data say of their numbers, as far as the task does not say it itself.

    Args:
        task: The task, of the data's sizes.
        meaning: What the data say.
    """
    inputs, heads = task.inputs, task.heads
    if meaning.features and not inputs.features and inputs.shape == (len(meaning.features),):
        inputs = inputs.model_copy(update={"features": meaning.features})
    if len(heads) == 1:
        said: dict[str, tuple[object, ...]] = {
            "labels": tuple(_said(meaning.labels)),
            "units": meaning.units,
            "mean": meaning.target_mean,
            "std": meaning.target_std,
        }
        fits = {name: each for name, each in said.items() if len(each) == heads[0].size and not getattr(heads[0], name)}
        heads = (heads[0].model_copy(update=fits),)
    return task.model_copy(update={"inputs": inputs, "heads": heads})


def hidden(task: TaskSpec, salt: str) -> TaskSpec:
    """A task of which names cross as digests alone: whoever has the same names finds them the same.

    Names are guessed easily, so that this keeps them from nobody who tries.

    Args:
        task: The task.
        salt: What digests are made with beside the names, for example a session's identifier.
    """
    inputs = task.inputs.model_copy(update={"features": digests(task.inputs.features, salt)})
    heads = tuple(each.model_copy(update={"labels": digests(each.labels, salt)}) for each in task.heads)
    return task.model_copy(update={"inputs": inputs, "heads": heads})


def digests(names: Sequence[str], salt: str) -> tuple[str, ...]:
    """Names as digests; see `hidden`."""
    short = blake3(salt.encode()).hexdigest()[:8]
    return tuple(each if _DIGEST.fullmatch(each) else _digest(each, short) for each in names)


def differences(
    party: str, own: TaskSpec, wanted: TaskSpec, aspects: frozenset[Aspect] = ASPECTS, *, hides: bool = False
) -> Iterator[Difference]:
    """What a party means otherwise than a contract, of tasks whose sizes are the same.

    Where nobody said how values are stored, they are as they are, and targets are scaled as the contract says where the
    party does not say; names that one side alone has are a difference, since nobody can tell whether the other means the
    same.

    Args:
        party: Name of the party.
        own: The task that its data are for.
        wanted: The contract's.
        aspects: What of it has to be the same.
        hides: Whether the party's names are not to be told.
    """
    if "inputs" in aspects:
        yield from _of_inputs(party, own.inputs, wanted.inputs, hides=hides)
    if "outputs" in aspects:
        for mine, theirs in zip(own.heads, wanted.heads, strict=False):
            yield from _of_head(party, mine, theirs, hides=hides)


def _of_inputs(party: str, own: InputSpec, wanted: InputSpec, *, hides: bool) -> Iterator[Difference]:
    yield from _names(
        party,
        own.features,
        wanted.features,
        "feature",
        hides=hides,
    )
    for name, mine, theirs in (("stored as", own.dtype, wanted.dtype), ("scaled by", own.scale, wanted.scale)):
        if mine and theirs and mine != theirs:
            yield Difference(
                f"inputs are {name} {_short(mine)} at {party} and {_short(theirs)} in the contract",
                f"{wanted.dtype or 'any'}, scaled by {_short(wanted.scale)}",
                f"{own.dtype or 'any'}, scaled by {_short(own.scale)}",
                "store them alike at all parties",
            )


def _of_head(party: str, own: HeadSpec, wanted: HeadSpec, *, hides: bool) -> Iterator[Difference]:
    what = "class" if wanted.name == "class" else wanted.name
    yield from _names(party, _said(own.labels), _said(wanted.labels), what, hides=hides)
    for name, mine, theirs in (
        ("the unit", own.units, wanted.units),
        # How a model works in targets says nothing of what they are: where a party leaves it open, the contract says.
        ("the mean that is taken off", own.mean or wanted.mean, wanted.mean),
        ("the deviation that it is divided by", own.std or wanted.std, wanted.std),
    ):
        for place in range(wanted.size):
            here, there = _at(mine, place), _at(theirs, place)
            if here != there:
                called = _at(wanted.labels, place) or f"{what} {place}"
                yield Difference(
                    f"{name} of {called} is {here or 'none'} at {party} and {there or 'none'} in the contract",
                    _listed(theirs),
                    _listed(mine),
                    "bring targets into the contract's unit and scale",
                )


def _said(labels: Sequence[str]) -> Sequence[str]:
    """Labels, but for those that are called by their numbers, which are not called anything."""
    return () if tuple(labels) == numbers(len(labels)) else labels


def _names(party: str, own: Sequence[str], wanted: Sequence[str], what: str, *, hides: bool) -> Iterator[Difference]:
    """The first of two lists of names that differ."""
    if not own and not wanted:
        return
    if not own or not wanted:
        lacks, there = (party, wanted) if wanted else ("the contract", _told(own, hides=hides))
        example = _classes(there)
        where = "under [data]" if wanted else "under [session.task] of the script, or under [data] of its data,"
        if what == "feature":
            example = f"features = [{', '.join(map(_quoted, there[:3]))}{', …' if len(there) > 3 else ''}]"
        yield Difference(
            f"{what} 0 is {_quoted(there[0])} {'in the contract' if wanted else 'at ' + party} and has no name "
            f"{'at ' if wanted else 'in '}{lacks}",
            _listed(wanted),
            _listed(_told(own, hides=hides)),
            f"if they mean the same, say so: {example} {where}",
        )
        return
    found = [_known(name, own) for name in wanted]
    shown = _told(own, hides=hides)
    for place in range(max(len(own), len(wanted))):
        here, there = _at(own, place), _at(found, place)
        if here != there:
            told, meant = _at(shown, place), there or _at(wanted, place)
            yield Difference(
                f"{what} {place} is {_quoted(told) or 'none'} at {party} and {_quoted(meant) or 'none'} in the contract",
                _listed(found),
                _listed(shown),
                _BY_COLUMN[what] if what in _BY_COLUMN else _bringing_together(own, found, shown),
            )
            return


def _bringing_together(own: Sequence[str], wanted: Sequence[str], shown: Sequence[str]) -> str:
    """What a party can do whose classes are not a contract's: it is never told to take one of its classes for another.

    Args:
        own: Its classes.
        wanted: The contract's, in words where it has the same.
        shown: Its classes as they may be told.
    """
    if {*own} <= {*wanted}:
        return (
            f"list them in node.toml as the contract does: {_classes(wanted)} under [data]; a class may have no sample"
        )
    lacking, surplus = [each for each in wanted if each not in own], [each for each in own if each not in wanted]
    if not lacking:
        return (
            f"leave out samples of other classes, or have {_classes(shown)} under [data] where the contract is drafted"
        )
    example = f"{_quoted(shown[own.index(surplus[0])])} = {_quoted(lacking[0])}"
    return f"if they mean the same, say in node.toml which is which: [data.classes] {example}, and so on, in the contract's order"


def _classes(names: Sequence[str]) -> str:
    return f"classes = [{', '.join(map(_quoted, names[:3]))}{', …' if len(names) > 3 else ''}]"


def _known(name: str, own: Sequence[str]) -> str:
    """A name of a contract in words, where it is a digest of one that this party has too."""
    found = _DIGEST.fullmatch(name)
    return name if found is None else next((each for each in own if _digest(each, found[1]) == name), name)


def _told(names: Sequence[str], *, hides: bool) -> Sequence[str]:
    return ["(not told)"] * len(names) if hides else names


def _digest(name: str, salt: str) -> str:
    return f"#{salt}:{blake3(f'{salt}:{name}'.encode()).hexdigest()[:24]}"


def _at(values: Sequence[object], place: int) -> str:
    return str(values[place]) if place < len(values) else ""


def _quoted(name: str) -> str:
    return f'"{name}"' if name else ""


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _listed(values: Sequence[object]) -> str:
    """A list, as long as an error may be."""
    text = ", ".join(map(str, values)) or "none"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…, {len(values)} in all"


def hides_names(data: object) -> bool:
    """Whether a party's data are such that their names do not cross."""
    return bool(getattr(data, "hides_names", False))


def meaning_of(data: object) -> Meaning:
    """What data say of their numbers; nothing where they say nothing."""
    train = getattr(data, "train", None)
    found: Meaning = getattr(train, "meaning", UNSAID)
    return found

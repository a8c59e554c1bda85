"""What counts of what people say of one sample, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from comity.contract import Json
from comity.protocols.peer_study.annotation.annotations import Annotation
from comity.protocols.peer_study.annotation.masks import merged, pixels
from comity.protocols.peer_study.choices import IGNORED, Difference


@dataclass(frozen=True, slots=True)
class Settled:
    """What counts of a sample.

    Attributes:
        label: Its class, or its mask; None where it is left out.
    """

    label: int | str | None


def settled(said: Sequence[Annotation], annotators: int, rule: Difference) -> Settled | None:
    """What counts of what was handed in of a sample; None while more people have to say something.

    Who skips a sample has had a say, and no vote. A sample that nobody labels is left out.

    Args:
        said: By different annotators, in the order in which it was handed in.
        annotators: How many have to say something, 1 or more.
        rule: What counts when they differ: `leave_out`, the sample is; `first`, what was handed in first does; `majority`,
            what most said does, and as long as there is no such label another annotator is waited for.
    """
    if len(said) < annotators:
        return None
    votes = [each.label for each in said if each.label is not None]
    masks = [each for each in votes if isinstance(each, str)]
    if masks:
        return Settled(merged(masks, rule))
    if rule == "first" or len({*votes}) < 2:
        return Settled(votes[0] if votes else None)
    if rule == "leave_out":
        return Settled(None)
    (most, count), (_, next_count), *_ = Counter(votes).most_common()
    return None if next_count == count else Settled(most)


def agreement(said: Mapping[str, Iterable[Annotation]]) -> list[dict[str, Json]]:
    """How far each two annotators agree, over the samples that both labelled.

    Args:
        said: What was handed in, by sample.

    Returns:
        For each two who have such samples: their names, how many `samples` there are, the share that they say the same
        of, and Cohen's kappa, which is 0 where they agree no more than by chance; None where both said one class alone.
        Of masks both are over the pixels that count for both.
    """
    by: dict[str, dict[str, int | str]] = {}
    for sample, each in said.items():
        for one in each:
            if one.label is not None:
                by.setdefault(one.annotator, {})[sample] = one.label
    found: list[dict[str, Json]] = []
    for mine, theirs in combinations(sorted(by), 2):
        both = [(by[mine][sample], by[theirs][sample]) for sample in by[mine] if sample in by[theirs]]
        common = [pair for label, other in both for pair in _pairs(label, other)]
        if common:
            same = sum(label == other for label, other in common) / len(common)
            kappa = _kappa(common, same)
            found.append({"annotators": [mine, theirs], "samples": len(both), "same": same, "kappa": kappa})
    return found


def _pairs(label: int | str, other: int | str) -> list[tuple[int, int]]:
    """What two said of one sample, or of each of its pixels."""
    if isinstance(label, int) and isinstance(other, int):
        return [(label, other)]
    mine, theirs = (pixels(str(each)).flatten() for each in (label, other))
    counted = (mine != IGNORED) & (theirs != IGNORED)
    return [*zip(mine[counted].tolist(), theirs[counted].tolist(), strict=True)]


def _kappa(common: Sequence[tuple[int, int]], same: float) -> float | None:
    """Cohen's kappa of pairs of labels."""
    mine, theirs = (Counter(labels) for labels in zip(*common, strict=True))
    by_chance = sum(mine[label] * theirs[label] for label in mine) / len(common) ** 2
    return None if by_chance == 1 else (same - by_chance) / (1 - by_chance)

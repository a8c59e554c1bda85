"""The layers that are judged, and what is known of their rows since each last left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from comity.privacy.leak_guard.columns import Columns, aligned
from comity.privacy.leak_guard.rules import SLACK, Rules, combined, could_pair, most_of_one, paired, scaled, unit, whole

_CHUNK = 32
"""Rows that are compared with what was sent before at once; bounds the memory."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found in a layer.

    Attributes:
        held: Rows that stay.
        isolated: Samples that combinations of rows show.
        samples: Distinct samples behind the layer's change since the last release.
    """

    held: Bool[Tensor, " rows"]
    isolated: int
    samples: int


class JudgedLayer(Protocol):
    """A layer whose rows leave or stay.

    Attributes:
        parameters: Names of its parameters, of which each row is held with the same row of the others.
        rows: How many rows.
        moved: Whether something was contributed since the last release.
    """

    parameters: tuple[str, ...]
    rows: int
    moved: bool

    def judge(self, rules: Rules) -> Judgement:
        """Says which rows stay, by what was contributed."""

    def settle(self, held: Bool[Tensor, " rows"], *, dropped: bool) -> None:
        """Takes note that the other rows left; what stays goes on collecting, or is dropped for good."""

    def kept(self) -> dict[str, Tensor]:
        """What is to be kept between releases."""

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Goes on from what was kept."""


class _Sent(NamedTuple):
    """What is behind rows that left together, for as long as none of them left again."""

    rows: Int[Tensor, " some"]
    columns: Columns


class _Judged(NamedTuple):
    """What a judgement has reckoned: what came now, scaled; and behind rows that wait, all that came, and that scaled."""

    rows: Columns
    together: Columns
    waiting: Columns


class LinearRows:
    """The rows of a fully connected layer.

    What was contributed since the last release is judged by all rules; what has come together behind a row that was held
    before, by itself, and together with what was sent of the same row before.

    Args:
        parameters: See `JudgedLayer`.
        rows: See `JudgedLayer`.
        mean: The layer's mean input, from which inputs are told apart.
    """

    def __init__(self, parameters: tuple[str, ...], rows: int, mean: Float[Tensor, " inputs"]) -> None:
        self.parameters = parameters
        self.rows = rows
        self.mean = mean
        self._drawn: list[tuple[Int[Tensor, " batch"], Float[Tensor, "batch rows"]]] = []
        self._now: Columns | None = None
        self._held = torch.zeros(rows, dtype=torch.bool)
        self._old = Columns.none(0)
        # Since when, in releases, a row is held, and when a sample of the old columns came last.
        self._release = 0
        self._since = torch.zeros(rows, dtype=torch.long)
        self._last = torch.empty(0, dtype=torch.long)
        self._sent: list[_Sent] = []
        self._judged = _Judged(Columns.none(0), Columns.none(0), Columns.none(0))

    @property
    def moved(self) -> bool:
        """See `JudgedLayer`."""
        return bool(self._drawn)

    def add(self, samples: Int[Tensor, " batch"], values: Float[Tensor, "batch rows"]) -> None:
        """Takes what the samples of a step contributed."""
        self._drawn.append((samples, values))

    def judge(self, rules: Rules) -> Judgement:
        """See `JudgedLayer.judge`."""
        now = self._collected()
        rows = Columns(now.samples, unit(now.values))
        share, behind = most_of_one(rows.values), torch.full((self.rows,), len(now.samples))
        together, waiting = self._old, self._old
        if self._held.any():
            together = self._old.plus(now.of(self._held))
            waiting = Columns(together.samples, unit(together.values))
            share[self._held] = most_of_one(waiting.values)
            behind[self._held] = self._distinct(now)
        self._judged = _Judged(rows, together, waiting)
        held = (share > rules.row) | (behind < rules.fewest)
        rest = torch.nonzero(~held).flatten()
        more, shown = combined(rows.values[rest], rules)
        held[rest[more]] = True
        # Where a row that waits is in what waits.
        place = self._held.cumsum(0) - 1
        for before in self._sent:
            waits, leaves = self._held[before.rows], ~held[before.rows]
            # Rows that wait are compared with all that came together, others with what came now.
            for which in (leaves & ~waits, leaves & waits):
                at = before.rows[which]
                mine = waiting.of(place[at]) if self._held[at].any() else rows.of(at)
                held[at] = successive(mine, before.columns.of(which), share[at], rules)
        held = whole(held, rules)
        return Judgement(held, int(shown.sum()), len(now.samples))

    def settle(self, held: Bool[Tensor, " rows"], *, dropped: bool) -> None:
        """See `JudgedLayer.settle`."""
        now = self._collected()
        self._remember(~held)
        self._release += 1
        if dropped or not held.any():
            self._old, self._last = Columns.none(0), torch.empty(0, dtype=torch.long)
            self._held = torch.zeros_like(held)
        else:
            self._wait(now, held)
        self._drawn, self._now = [], None
        self._judged = _Judged(Columns.none(0), Columns.none(0), Columns.none(0))

    def _wait(self, now: Columns, held: Bool[Tensor, " rows"]) -> None:
        """Keeps what is behind the rows that stay: what is new, and of those that were held before, what is old."""
        together, stayed = self._judged.together, held & self._held
        samples = torch.cat([together.samples, now.samples]).unique()
        values = torch.zeros(self.rows, len(samples))
        values[stayed] = together.of(held[self._held]).spread(samples)
        values[held & ~self._held] = now.of(held & ~self._held).spread(samples)
        last = torch.empty(len(samples), dtype=torch.long)
        last[torch.searchsorted(samples, self._old.samples)] = self._last
        last[torch.searchsorted(samples, now.samples)] = self._release
        self._since = torch.where(held & ~self._held, self._release - 1, self._since)
        self._held = held.clone()
        recent = last > self._since[held].min()
        self._old, self._last = Columns(samples[recent], values[held][:, recent]), last[recent]

    def kept(self) -> dict[str, Tensor]:
        """See `JudgedLayer.kept`."""
        kept = {
            "mean": self.mean.cpu(),
            "held": self._held,
            "release": torch.tensor(self._release),
            "since": self._since,
            "old.samples": self._old.samples,
            "old.values": self._old.values,
            "old.last": self._last,
        }
        for number, sent in enumerate(self._sent):
            kept[f"sent.{number}.rows"] = sent.rows
            kept[f"sent.{number}.samples"] = sent.columns.samples
            kept[f"sent.{number}.values"] = sent.columns.values
        return kept

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """See `JudgedLayer.restore`."""
        self.mean = kept["mean"].to(self.mean.device)
        self._held, self._since, self._last = kept["held"], kept["since"], kept["old.last"]
        self._release = int(kept["release"])
        self._old = Columns(kept["old.samples"], kept["old.values"])
        self._sent = []
        while (rows := kept.get(f"sent.{len(self._sent)}.rows")) is not None:
            at = f"sent.{len(self._sent)}"
            self._sent.append(_Sent(rows, Columns(kept[f"{at}.samples"], kept[f"{at}.values"])))

    def _collected(self) -> Columns:
        if self._now is None:
            if self._drawn:
                samples = torch.cat([each for each, _ in self._drawn])
                values = torch.cat([each for _, each in self._drawn])
                self._now = Columns.summed(samples.cpu(), values.cpu())
            else:
                self._now = Columns.none(self.rows)
        return self._now

    def _distinct(self, now: Columns) -> Int[Tensor, " held"]:
        """Distinct samples in the batches since each held row last left."""
        samples = torch.cat([self._old.samples, now.samples]).unique()
        last = torch.full((len(samples),), -1)
        last[torch.searchsorted(samples, self._old.samples)] = self._last
        last[torch.searchsorted(samples, now.samples)] = self._release + 1
        return (last > self._since[self._held].unsqueeze(1)).sum(1)

    def _remember(self, left: Bool[Tensor, " rows"]) -> None:
        """Keeps what is behind what was sent last of each row, scaled."""
        fresh, waited = left & ~self._held, left & self._held
        leaving = [(fresh, self._judged.rows.of(fresh))]
        if waited.any():
            leaving.append((waited, self._judged.waiting.of(left[self._held]).trimmed()))
        stays = ((each, ~left[each.rows]) for each in self._sent)
        self._sent = [
            *(_Sent(each.rows[some], each.columns.of(some).trimmed()) for each, some in stays if some.any()),
            *(_Sent(torch.nonzero(some).flatten(), columns) for some, columns in leaving if some.any()),
        ]


def successive(now: Columns, before: Columns, share: Float[Tensor, " rows"], rules: Rules) -> Bool[Tensor, " rows"]:
    """Rows that stay since their difference with what was sent of them before shows a sample.

    Args:
        now: What is behind the rows, scaled.
        before: What was behind them when they left last, scaled.
        share: The greatest λ of each row now.
        rules: The thresholds.
    """
    held = torch.zeros(len(now.values), dtype=torch.bool)
    if len(now.values) == 0 or len(before.samples) == 0 or len(now.samples) == 0:
        return held
    place = torch.searchsorted(before.samples, now.samples).clamp_max_(len(before.samples) - 1)
    common = torch.nonzero(before.samples[place] == now.samples).flatten()
    cosine = (now.values.index_select(1, common) * before.values.index_select(1, place[common])).sum(1)
    earlier = most_of_one(before.values)
    suspect = (share > 0) & (earlier > 0) & (could_pair(share, earlier, cosine) > SLACK * rules.combined)
    for chunk in torch.nonzero(suspect).flatten().split(_CHUNK):
        one, other = aligned(now.of(chunk), before.of(chunk))
        held[chunk] = paired(scaled(one), scaled(other)).amax(1) > rules.combined
    return held


class EmbeddingRows:
    """The rows of a table of embeddings: one that a single sample moved, or mostly, stays.

    Args:
        parameters: See `JudgedLayer`.
        rows: See `JudgedLayer`.
    """

    def __init__(self, parameters: tuple[str, ...], rows: int) -> None:
        self.parameters = parameters
        self.rows = rows
        self._drawn: list[tuple[Tensor, Tensor]] = []
        self._old: tuple[Tensor, Tensor] = _nothing()

    @property
    def moved(self) -> bool:
        """See `JudgedLayer`."""
        return bool(self._drawn)

    def add(self, samples: Int[Tensor, " moves"], rows: Int[Tensor, " moves"], sizes: Float[Tensor, " moves"]) -> None:
        """Takes by how much samples moved rows."""
        # A key for each pair of row and sample.
        self._drawn.append(((rows << 32) + samples, sizes))

    def judge(self, rules: Rules) -> Judgement:
        """See `JudgedLayer.judge`."""
        keys, sizes = self._collected()
        rows = keys >> 32
        squares = sizes.double().square()
        total = torch.zeros(self.rows, dtype=torch.float64).index_add_(0, rows, squares)
        most = torch.zeros(self.rows, dtype=torch.float64).scatter_reduce_(0, rows, squares, "amax")
        samples = len((keys & 0xFFFFFFFF).unique())
        return Judgement((total > 0) & (most > rules.row * total), 0, samples)

    def settle(self, held: Bool[Tensor, " rows"], *, dropped: bool) -> None:
        """See `JudgedLayer.settle`."""
        keys, sizes = self._collected()
        stays = held[keys >> 32]
        self._old = _nothing() if dropped else (keys[stays], sizes[stays])
        self._drawn = []

    def kept(self) -> dict[str, Tensor]:
        """See `JudgedLayer.kept`."""
        return {"keys": self._old[0], "sizes": self._old[1]}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """See `JudgedLayer.restore`."""
        self._old = kept["keys"], kept["sizes"]

    def _collected(self) -> tuple[Tensor, Tensor]:
        """Pairs of row and sample with how much came together."""
        drawn = [self._old, *((keys.cpu(), sizes.cpu()) for keys, sizes in self._drawn)]
        keys, places = torch.cat([each for each, _ in drawn]).unique(return_inverse=True)
        sizes = torch.cat([each for _, each in drawn])
        return keys, torch.zeros(len(keys)).index_add_(0, places, sizes)


def _nothing() -> tuple[Tensor, Tensor]:
    return torch.empty(0, dtype=torch.long), torch.empty(0)

"""The layers that are judged, and what is known of their rows since each last left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from comity.privacy.leak_guard.columns import Columns, Draws
from comity.privacy.leak_guard.rules import (
    SLACK,
    Rules,
    chunks,
    combined,
    could_pair,
    most_of_one,
    paired,
    scaled,
    unit,
    whole,
)


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

    def judge(self, rules: Rules, draws: Draws) -> Judgement:
        """Says which rows stay, by what was contributed; `draws` is what the layers of a release have in common."""

    def settle(self, held: Bool[Tensor, " rows"], *, dropped: bool) -> None:
        """Takes note that the other rows left; what stays goes on collecting, or is dropped for good."""

    def kept(self) -> dict[str, Tensor]:
        """What is to be kept between releases."""

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Goes on from what was kept."""


class _Sent(NamedTuple):
    """What is behind rows that left together, for as long as none of them left again.

    Attributes:
        rows: Which they are.
        columns: What is behind them, scaled.
        share: The greatest λ of each.
    """

    rows: Int[Tensor, " some"]
    columns: Columns
    share: Float[Tensor, " some"]

    def staying(self, left: Bool[Tensor, " rows"]) -> _Sent | None:
        """Those that did not leave again."""
        stay = torch.nonzero(~left[self.rows]).flatten()
        if stay.shape == self.rows.shape:
            return self
        return _Sent(self.rows[stay], self.columns.of(stay).trimmed(), self.share[stay]) if len(stay) else None


class _Judged(NamedTuple):
    """What a judgement has reckoned.

    Attributes:
        now: What came since the last release.
        rows: That, scaled.
        together: All that came behind each row that waits.
        waiting: That, scaled.
        last: In which release each sample of `together` came last.
        new: Where the samples of `now` are among those of `together`.
        share: The greatest λ of each row, of those that wait by all that came.
    """

    now: Columns
    rows: Columns
    together: Columns
    waiting: Columns
    last: Int[Tensor, " samples"]
    new: Int[Tensor, " samples"]
    share: Float[Tensor, " rows"]


class LinearRows:
    """The rows of a fully connected layer.

    What was contributed since the last release is judged by all rules; what has come together behind a row that was held
    before, by itself, and together with what was sent of the same row before.

    Args:
        parameters: See `JudgedLayer`.
        rows: See `JudgedLayer`.
        mean: The layer's mean input, from which inputs are told apart.
        by_itself: Whether each row is a number or two, of which combinations say no more than it does.
    """

    def __init__(
        self, parameters: tuple[str, ...], rows: int, mean: Float[Tensor, " inputs"], *, by_itself: bool = False
    ) -> None:
        self._by_itself = by_itself
        self.parameters = parameters
        self.rows = rows
        self.mean = mean
        self._drawn: list[tuple[Int[Tensor, " batch"], Float[Tensor, "batch rows"]]] = []
        self._held = torch.zeros(rows, dtype=torch.bool)
        self._old = Columns.none(0)
        # Since when, in releases, a row is held, and when a sample of the old columns came last.
        self._release = 0
        self._since = torch.zeros(rows, dtype=torch.long)
        self._last = torch.empty(0, dtype=torch.long)
        self._sent: list[_Sent] = []
        self._judged: _Judged | None = None

    @property
    def moved(self) -> bool:
        """See `JudgedLayer`."""
        return bool(self._drawn)

    def add(self, samples: Int[Tensor, " batch"], values: Float[Tensor, "batch rows"]) -> None:
        """Takes what the samples of a step contributed."""
        self._drawn.append((samples, values))

    def judge(self, rules: Rules, draws: Draws) -> Judgement:
        """See `JudgedLayer.judge`."""
        found = self._judged = self._reckoned(draws)
        behind = torch.full((self.rows,), len(found.now.samples))
        behind[self._held] = self._distinct(found.last)
        held = (found.share > rules.row) | (behind < rules.fewest)
        rest = torch.nonzero(~held).flatten()
        shown = 0
        if not self._by_itself:
            more, samples = combined(found.rows.values.index_select(0, rest), rules)
            held[rest[more]] = True
            shown = int(samples.sum())
        # Where a row that waits is in what waits.
        place = self._held.cumsum(0) - 1
        for before in self._sent:
            waits, leaves = self._held[before.rows], ~held[before.rows]
            # Rows that wait are compared with all that came together, others with what came now.
            for some, columns in ((leaves & ~waits, found.rows), (leaves & waits, found.waiting)):
                which = torch.nonzero(some).flatten()
                if which.shape[0]:
                    at = before.rows[which]
                    mine = at if columns is found.rows else place[at]
                    shares = found.share[at], before.share[which]
                    held[at] = successive(columns, before.columns, (mine, which), shares, rules)
        held = whole(held, rules)
        return Judgement(held, shown, len(found.now.samples))

    def settle(self, held: Bool[Tensor, " rows"], *, dropped: bool) -> None:
        """See `JudgedLayer.settle`."""
        found = self._judged or self._reckoned(Draws())
        self._remember(~held, found)
        self._release += 1
        if dropped or not held.any():
            self._old, self._last = Columns.none(0), torch.empty(0, dtype=torch.long)
            self._held = torch.zeros_like(held)
        else:
            self._wait(found, held)
        self._drawn, self._judged = [], None

    def _reckoned(self, draws: Draws) -> _Judged:
        """What came since the last release, and together with what came before behind rows that wait."""
        now = draws.summed(self._drawn) if self._drawn else Columns.none(self.rows)
        rows = Columns(now.samples, unit(now.values))
        share = most_of_one(rows.values)
        waits = torch.nonzero(self._held).flatten()
        samples, places = torch.cat([self._old.samples, now.samples]).unique(return_inverse=True)
        earlier, new = places.split([len(self._old.samples), len(now.samples)])
        last = torch.empty(len(samples), dtype=torch.long)
        last[earlier] = self._last
        last[new] = self._release + 1
        values = now.values.new_zeros(len(waits), len(samples)).index_copy_(1, earlier, self._old.values)
        values.index_add_(1, new, now.values.index_select(0, waits))
        together, waiting = Columns(samples, values), Columns(samples, unit(values))
        share[waits] = most_of_one(waiting.values)
        return _Judged(now, rows, together, waiting, last, new, share)

    def _wait(self, found: _Judged, held: Bool[Tensor, " rows"]) -> None:
        """Keeps what is behind the rows that stay: what is new, and of those that were held before, what is old."""
        fresh, samples = held & ~self._held, found.together.samples
        # Where a row is among those that stay; of those, the ones that were held before, and the others.
        place = held.cumsum(0) - 1
        values = found.now.values.new_zeros(int(held.sum()), len(samples))
        stayed = torch.nonzero(held[self._held]).flatten()
        values.index_copy_(0, place[held & self._held], found.together.values.index_select(0, stayed))
        some = torch.nonzero(fresh).flatten()
        spread = values.new_zeros(len(some), len(samples))
        values.index_copy_(0, place[some], spread.index_copy_(1, found.new, found.now.values.index_select(0, some)))
        self._since = torch.where(fresh, self._release - 1, self._since)
        self._held = held.clone()
        recent = torch.nonzero(found.last > self._since[held].min()).flatten()
        if len(recent) < len(samples):
            samples, values = samples[recent], values.index_select(1, recent)
        self._old, self._last = Columns(samples, values), found.last[recent]

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
            columns = Columns(kept[f"{at}.samples"], kept[f"{at}.values"])
            self._sent.append(_Sent(rows, columns, most_of_one(columns.values)))

    def _distinct(self, last: Int[Tensor, " samples"]) -> Int[Tensor, " held"]:
        """Distinct samples in the batches since each held row last left."""
        until = last.bincount(minlength=self._release + 2).cumsum(0)
        return len(last) - until[self._since[self._held]]

    def _remember(self, left: Bool[Tensor, " rows"], found: _Judged) -> None:
        """Keeps what is behind what was sent last of each row, scaled."""
        self._sent = [each for each in (sent.staying(left) for sent in self._sent) if each is not None]
        fresh, waited = (torch.nonzero(left & each).flatten() for each in (~self._held, self._held))
        if len(fresh):
            self._sent.append(_Sent(fresh, found.rows.of(fresh), found.share[fresh]))
        if len(waited):
            places = torch.nonzero(left[self._held]).flatten()
            self._sent.append(_Sent(waited, found.waiting.of(places).trimmed(), found.share[waited]))


def successive(
    now: Columns,
    before: Columns,
    pairs: tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]],
    shares: tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]],
    rules: Rules,
) -> Bool[Tensor, " pairs"]:
    """Rows that stay since their difference with what was sent of them before shows a sample.

    Args:
        now: What is behind rows, scaled.
        before: What was behind rows when they left last, scaled.
        pairs: Which row of the former is compared with which of the latter.
        shares: The greatest λ of both rows of each pair.
        rules: The thresholds.
    """
    held = torch.zeros(len(pairs[0]), dtype=torch.bool)
    if len(before.samples) == 0 or len(now.samples) == 0:
        return held
    place = torch.searchsorted(now.samples, before.samples).clamp_max_(len(now.samples) - 1)
    common = torch.nonzero(now.samples[place] == before.samples).flatten()
    one = now.values.index_select(1, place[common]).index_select(0, pairs[0])
    other = before.values.index_select(1, common).index_select(0, pairs[1])
    cosine = (one * other).sum(1)
    moved = (shares[0] > 0) & (shares[1] > 0)
    suspect = torch.nonzero(moved & (could_pair(*shares, cosine) > SLACK * rules.combined)).flatten()
    for chunk in chunks(suspect):
        mine, ones = _apart(now, pairs[0][chunk], place[common])
        theirs, others = _apart(before, pairs[1][chunk], common)
        # A sample behind one of the rows alone is as if the other had 0 of it.
        nothing = torch.zeros_like(ones)
        leverage = paired(torch.cat([mine, ones, nothing], dim=1), torch.cat([theirs, nothing, others], dim=1))
        held[chunk] = leverage.amax(1) > rules.combined
    return held


def _apart(
    columns: Columns, rows: Int[Tensor, " some"], common: Int[Tensor, " common"]
) -> tuple[Float[Tensor, "some common"], Float[Tensor, "some 1"]]:
    """What the samples that two releases have in common contributed to rows, scaled, and the most that another did."""
    values = scaled(columns.values.index_select(0, rows))
    both = values.index_select(1, common)
    return both, values.index_fill_(1, common, 0).abs().amax(1, keepdim=True)


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

    def judge(self, rules: Rules, _: Draws) -> Judgement:
        """See `JudgedLayer.judge`."""
        keys, sizes = self._collected()
        rows = keys >> 32
        squares = sizes.double().square()
        total = torch.zeros(self.rows, dtype=torch.float64).index_add_(0, rows, squares)
        most = torch.zeros(self.rows, dtype=torch.float64).scatter_reduce_(0, rows, squares, "amax")
        samples = len((keys & 0xFFFFFFFF).unique())
        # What is not finite stays.
        return Judgement((total != 0) & ~(total.isfinite() & (most <= rules.row * total)), 0, samples)

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

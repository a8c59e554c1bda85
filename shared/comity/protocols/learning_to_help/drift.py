"""What serving comes to over time, beside what calibration promised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from comity.contract import Json

_DEVIATIONS = 4.0
"""So many standard deviations are not chance."""


@dataclass
class ServingReport:
    """Counts of predictions, in all and since the last report.

    Attributes:
        promised: The reject rate that calibration promised; None where there was none.
        calibrated: How many samples it rests on.
        counts: In all: `predictions`, `asked`, `agreed` where both models say the same of what was asked, `free` where the
            rejector decides and `wanted` where it wants to ask, and why the others were answered at home.
    """

    promised: float | None
    calibrated: int
    counts: Counter[str] = field(default_factory=Counter)
    _since: Counter[str] = field(default_factory=Counter)

    def add(self, counts: Mapping[str, int]) -> None:
        """Counts predictions."""
        self.counts.update(counts)
        self._since.update(counts)

    @property
    def pending(self) -> int:
        """Predictions since the last report."""
        return self._since["predictions"]

    def next(self) -> dict[str, Json]:
        """The predictions since the last report; `what` says it in a line."""
        since, self._since = self._since, Counter()
        # What the rejector wants, whether or not it is to be had.
        freely = since["free"]
        rate = since["wanted"] / freely if freely else None
        agreed = since["agreed"] / since["asked"] if since["asked"] else None
        drifts = rate is not None and self._drifts(rate, freely)
        fields: dict[str, Json] = {
            **{name: since[name] for name in ("predictions", "asked", *(why for why in WHY_LOCAL if since[why]))},
            "reject_rate": rate,
            "reject_rate_promised": self.promised,
            "agreement": agreed,
            "drifts": drifts,
        }
        return {"what": self._line(fields), **fields}

    def _drifts(self, rate: float, predictions: int) -> bool:
        """Whether chance does not explain the difference to what calibration promised."""
        if self.promised is None or not self.calibrated:
            return False
        # One of each at least: a share of 0 or 1 of some samples is not one of all.
        share = (self.promised * self.calibrated + 1) / (self.calibrated + 2)
        deviation = math.sqrt(share * (1 - share) * (1 / predictions + 1 / self.calibrated))
        return abs(rate - self.promised) > _DEVIATIONS * deviation

    def _line(self, fields: Mapping[str, Json]) -> str:
        def share(name: str) -> str:
            value = fields[name]
            return "-" if not isinstance(value, float) else f"{value:.1%}"

        parts = [
            f"{fields['predictions']} predictions: {share('reject_rate')} to be asked, "
            f"{share('reject_rate_promised')} promised, {fields['asked']} asked, agreement {share('agreement')}"
        ]
        why = [f"{fields[name]} {said}" for name, said in WHY_LOCAL.items() if name != "rejector" and fields.get(name)]
        if why:
            parts.append("answered here: " + ", ".join(why))
        if fields["drifts"]:
            parts.append("the inputs are not as calibration's were: calibrate anew, in a new session")
        return "; ".join(parts)


WHY_LOCAL = {
    "rejector": "as the rejector says",
    "forced": "as the caller says",
    "capped": "at the cap of the reject rate",
    "spent": "since what was bought is spent",
    "away": "since the server is away",
    "late": "since no answer came in time",
    "busy": "since the server is busy",
    "gone": "for nobody, whose caller had gone",
}
"""Why an input is answered by the client's model."""

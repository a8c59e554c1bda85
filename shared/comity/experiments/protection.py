"""What protecting samples costs, and what of them it leaves to be read: one session under several settings of `[privacy]`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from comity.experiments.charts import bars, panels
from comity.experiments.datasets import Samples, title
from comity.experiments.reproduction import Claim, ExperimentContext, Metrics
from comity.experiments.studies import loaded
from comity.node.audited import audited
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script, parse_script
from comity.node.validation import validated
from comity.privacy.leak_guard.verdict import Verdict
from comity.protocol.audits import AuditContext
from comity.protocol.registry import protocol
from comity.simulation.in_process import parties, simulate
from comity.store.places import store_url
from comity.store.sql_store import SqlStore
from comity.store.store import StoredSession

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEEP = {"keep": True, "max_bytes": 10**9}


@dataclass(frozen=True)
class Way:
    """How the parties that train look after their samples.

    Attributes:
        preset: `[privacy] preset`.
        epsilon: ε of the whole session, for `dp`.
        width_factor: What the owners lowered the limit to; None for its default.
        min_distinct: Likewise.
        max_batch_share: What they raised it to; None for its default.
    """

    preset: str
    epsilon: float | None = None
    width_factor: float | None = None
    min_distinct: int | None = None
    max_batch_share: float | None = None

    @property
    def privacy(self) -> dict[str, Any]:
        """The table of a node's configuration."""
        own = {name: getattr(self, name) for name in ("width_factor", "min_distinct", "max_batch_share")}
        return {"preset": self.preset} | {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True)
class Protection:
    """A session, and the ways to protect it.

    Attributes:
        samples: The parties' data.
        make: `package.module:NAME` of the function that makes the session's script, without any protection, of the context,
            the samples and a seed.
        ways: By what they are called.
        accuracy: The metric that it may cost.
        party: Whose sends are audited; empty for no audit.
        seeds: Means are taken over them; the first is audited.
        kept: Parties that keep the `[privacy]` that the script has for them.
    """

    samples: Samples
    make: str
    ways: tuple[tuple[str, Way], ...]
    accuracy: str
    party: str = ""
    seeds: tuple[int, ...] = (0,)
    kept: tuple[str, ...] = ()

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The data, as people call them."""
        return (title(self.samples.name),)


_OF_A_PARTY = ("partition", "label_noise", "relabel", "without", "splits")
"""What a demo's script says of a party's share, whatever it is a share of."""


def on_samples(context: ExperimentContext, samples: Samples, seed: int, text: str) -> dict[str, Any]:
    """A demo's session on other samples, as the fields of a script.

    Args:
        context: Where the samples are.
        samples: The samples.
        seed: Decides the shares and each party's randomness.
        text: The demo's script.
    """
    fields = parse_script(text).model_dump(mode="json", exclude_unset=True)
    data = context.datasets.section(samples, seed)
    for name, party in fields["party"].items():
        party["data"] = data | {key: party["data"][key] for key in _OF_A_PARTY if key in party["data"]}
        party["secret"] = f"{name}-{seed}"
    if samples.name == "mnist" and "task" in fields["session"]:
        fields["session"]["task"]["input_shape"] = [1, 28, 28]
    fields.pop("simulation", None)
    return fields


def measure(settings: Protection, context: ExperimentContext) -> Metrics:
    """Runs the session in each way.

    Returns:
        By way: `accuracy`, 0 to 1, mean over seeds, and `accuracies`; `held`, the share of rows held by those who train, where
        somebody guards; and what audits of the first seed found: `reconstruction`, `membership`.
    """
    return {name: _measured(settings, way, context, name) for name, way in settings.ways}


def _measured(settings: Protection, way: Way, context: ExperimentContext, name: str) -> dict[str, Any]:
    runs: list[dict[str, Any]] = []
    for seed in settings.seeds:
        context.say(f"  {name}, seed {seed}")
        script = _protected(loaded(settings.make)(context, settings.samples, seed), way, settings.kept)
        with TemporaryDirectory() as folder:
            result, _ = simulate(script, state=Path(folder))
            trained = [each for each in script.party if _trains(script, each)]
            held = [share for each in trained if (share := _held(Path(folder), each, result.session)) is not None]
            found = _audits(script, settings.party, Path(folder)) if settings.party and not runs else {}
        accuracy: Any = result.metrics[settings.accuracy]
        runs.append({"accuracy": accuracy, "held": fmean(held) if held else None, **found})
    shares = [each["held"] for each in runs if each["held"] is not None]
    return {
        **runs[0],
        "accuracy": fmean(each["accuracy"] for each in runs),
        "accuracies": [each["accuracy"] for each in runs],
        "held": fmean(shares) if shares else None,
        "privacy": way.privacy | ({} if way.epsilon is None else {"epsilon": way.epsilon}),
    }


def _trains(script: Script, party: str) -> bool:
    return script.party[party].role in protocol(script.session.protocol).trains


def _protected(script: Script, way: Way, kept: tuple[str, ...]) -> Script:
    """The script with a way's settings at all who train, but those who keep theirs."""
    fields = script.model_dump(mode="json", exclude_unset=True)
    for name in fields["party"]:
        # Secrets are not among what is dumped.
        secret = script.party[name].secret
        fields["party"][name]["secret"] = None if secret is None else secret.get_secret_value()
        if _trains(script, name) and name not in kept:
            fields["party"][name] |= {"privacy": way.privacy, "audit": _KEEP}
    if way.epsilon is not None:
        fields["session"]["terms"]["privacy"] = {"scope": "total", "epsilon": way.epsilon}
    return validated(Script, fields, "the experiment's script")


def _held(folder: Path, party: str, session: str) -> float | None:
    with closing(SqlStore(store_url(folder / party), read_only=True)) as store:
        facts = (entry.fact for entry in store.entries(session))
        found = [Verdict.from_json(each.body) for each in facts if each.matter == "judged"]
    rows = sum(each.rows for each in found)
    return sum(each.held_rows for each in found) / rows if rows else None


def _audits(script: Script, party: str, folder: Path) -> dict[str, Any]:
    """What the protocol's audits find of what a party sent."""
    drafting = next(local for side in parties(script) for local in side if local.name != party)
    contract, definition = draft_contract(script, drafting, script.session.id or "")
    section = script.party[party]
    with closing(SqlStore(store_url(folder / party), read_only=True)) as store:
        kept = StoredSession(contract.session, {}, {"party": party})
        seen = audited(section, party, contract, store, folder / party)
        context = AuditContext(contract, kept, store, folder / party, seen)
        found = {}
        for audit in definition.extensions.audits:
            if audit.name in {"membership", "reconstruction"}:
                found[audit.name] = dict(loaded(audit.run)(context))
    return found


def draw(metrics: Metrics, figure: Figure) -> None:
    """By way: accuracy; samples that changes show; how well members are told from others."""
    audits = [each for each in metrics.values() if "reconstruction" in each]
    members = [each for each in metrics.values() if "membership" in each]
    titles = ["accuracy", *(["samples shown"] if audits else []), *(["membership"] if members else [])]
    axes = panels(figure, titles)
    bars(axes[0], {name: {"test accuracy": each["accuracy"]} for name, each in metrics.items()}, y="share")
    axes[0].set_ylim(0.5, 1.1)
    if audits:
        shown: dict[str, Mapping[str, float | None]] = {
            name: {
                "changes": each["reconstruction"].get("distinct_samples_shown"),
                "their differences": each["reconstruction"].get("successive_distinct_samples_shown"),
            }
            for name, each in metrics.items()
        }
        bars(axes[1], shown, y="different samples")
        most = max(value or 0 for each in shown.values() for value in each.values())
        axes[1].set_ylim(0, max(1.0, 1.3 * most))
    if members:
        told = {
            name: {"loss": each["membership"]["best_model_auc"], "LiRA": each["membership"].get("lira_auc")}
            for name, each in metrics.items()
        }
        bars(axes[-1], told, y="area under the curve")
        axes[-1].set_ylim(0.4, 1.0)
        axes[-1].axhline(0.5, color="gray", linewidth=0.6)


def _shown(metrics: Metrics, name: str) -> int | None:
    found = metrics.get(name, {}).get("reconstruction")
    if found is None or "samples_shown" not in found:
        return None
    return int(found["samples_shown"]) + int(found["successive_samples_shown"])


def _shows_none(metrics: Metrics) -> bool | None:
    found = [_shown(metrics, name) for name in metrics if not name.startswith("public")]
    return None if all(each is None for each in found) else not any(found)


def _costs_little(metrics: Metrics) -> bool | None:
    open_ones = [each["accuracy"] for name, each in metrics.items() if name.startswith("public")]
    guarded = [each["accuracy"] for name, each in metrics.items() if name.startswith("guarded")]
    return None if not open_ones or not guarded else min(guarded) > max(open_ones) - 0.02


def _tells(metrics: Metrics) -> bool | None:
    found = [each["membership"] for each in metrics.values() if "membership" in each]
    return max(each.get("lira_auc", each["loss_auc"]) for each in found) > 0.55 if found else None


TELLS = (Claim("who was trained on can be told better than by guessing, where nothing protects them", _tells),)
"""What is to be seen of models that nothing protects."""
CLAIMS = (
    Claim("nothing that a guarded or private party sends shows a sample, alone or as a difference", _shows_none),
    Claim("the guard costs less than two points of accuracy", _costs_little),
)
"""What is to be seen."""

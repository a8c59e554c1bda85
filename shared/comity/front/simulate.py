"""A session in this process, between parties that are described in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from comity.contract import Contract, Preprocessing, Terms
from comity.data import Splits
from comity.errors import InvalidValue
from comity.experiments import with_baselines
from comity.front.casting import cast
from comity.front.factories import require_same
from comity.front.party import HeldParty, Parties, require_parties
from comity.front.progress import RoundsBar
from comity.front.result import Result
from comity.front.scripts import ScriptLike, is_script, script_of, session_script, terms_of
from comity.node.artifacts.keeping import kept, kept_of_each
from comity.node.party import LocalParty
from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.result import with_metrics
from comity.node.sessions.script import Script
from comity.node.validation import validated
from comity.protocol.registry import protocol as protocol_named
from comity.randomness import seeded
from comity.session.events import Event
from comity.simulation.in_process import parties as parties_of
from comity.simulation.in_process import simulate_with
from comity.simulation.threads import threads as computing_with
from comity.tasks import build_model

Normalization = tuple[Sequence[float], Sequence[float]]


def simulate(  # noqa: PLR0913 - a session has so much to say, all of it by name
    protocol: ScriptLike,
    parties: Parties | None = None,
    terms: Terms | Mapping[str, Any] | None = None,
    *,
    rounds: int | None = None,
    seed: int | None = None,
    id: str | None = None,
    normalization: Normalization | None = None,
    classes: int | None = None,
    task: Mapping[str, Any] | None = None,
    threads: int | None = None,
    baselines: bool = False,
    state: Path | str | None = None,
    progress: bool | None = None,
    observe: Callable[[Event], None] | None = None,
) -> Result:
    """Runs a session in this process: the same roles, contract, gates and bytes as between nodes.

    Args:
        protocol: The protocol's name (`comity.protocol_names()` lists them), or a whole script with `[party.NAME]` tables:
            a path, TOML or a dict. A script says all of it; of what follows it takes `state`, `progress` and `observe`.
        parties: Those that take part, a list or a dict by name.
        terms: The protocol's terms, a dict or its terms class; what is left out has its default.
        rounds: Rounds to buy; 10 where nothing is said.
        seed: Seed of initial weights, 0 where nothing is said; a party without `secret` takes its own randomness from it too.
        id: Identifier of the session.
        normalization: Mean and standard deviation by channel, which every party takes off its inputs.
        classes: How many classes there are; left out, what the labels of all parties say.
        task: What `[session.task]` of a script says beyond the data: `{"weights": [1, 9]}`, `{"options": {"smoothing": 0.1}}`.
        threads: Threads of tensor operations, on which the last digits depend.
        baselines: Whether to train what the protocol is compared with, and add it to the metrics.
        state: Folder where the parties keep what nodes keep, so that a simulation that was stopped goes on.
        progress: Whether to show a bar; left out, in a terminal or a notebook.
        observe: Is told what happens, as it happens.

    Raises:
        UsageError: The parties, the terms or the script cannot be used; before any training.
        RefusedError: The parties' models, data or policies do not go together; before any training.
        SessionFailed: The session failed.
    """
    if is_script(protocol):
        beside = {
            "parties": parties,
            "terms": terms,
            "rounds": rounds,
            "seed": seed,
            "id": id,
            "normalization": normalization,
            "classes": classes,
            "task": task,
            "threads": threads,
            "baselines": baselines or None,
        }
        if given := [name for name, value in beside.items() if value is not None]:
            raise InvalidValue(
                "a script says who takes part and on which terms",
                expected="a script alone, or the name of a protocol with parties and terms",
                received=f"both: {', '.join(given)}",
                action="say it in the script, or name the protocol",
            )
        return _run(script_of(protocol), state, progress, observe)
    if parties is None:
        raise InvalidValue("there are no parties", expected="a list of comity.Party", received="none")
    definition = protocol_named(str(protocol))
    agreed = definition.terms.model_validate(terms_of(definition, terms))
    preprocessing = Preprocessing()
    if normalization is not None:
        mean, std = normalization
        preprocessing = validated(Preprocessing, {"mean": tuple(mean), "std": tuple(std)}, "normalization")
    found = cast(require_parties(parties), definition, definition.models_of(agreed), preprocessing, classes)
    script = session_script(
        definition,
        terms,
        acceptors=found.acceptors,
        rounds=10 if rounds is None else rounds,
        seed=seed or 0,
        id=id,
        models=found.models,
        task=_with_options(found.task or {}, task or {}) or None,
        normalization=preprocessing.model_dump(),
    )
    simulation = script.simulation.model_copy(update={"threads": threads, "baselines": baselines})
    script = script.model_copy(update={"party": found.parties, "simulation": simulation})
    return _run(script, state, progress, observe)


def _with_options(of_data: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the data say of their task, and what the caller says instead; the options of both."""
    options = {**of_data.get("options", {}), **said.get("options", {})}
    return {**of_data, **said, **({"options": options} if options else {})}


def _run(
    script: Script, state: Path | str | None, progress: bool | None, observe: Callable[[Event], None] | None
) -> Result:
    with ExitStack() as stack:
        stack.enter_context(computing_with(script.simulation.threads))
        initiators, acceptors = parties_of(script, None if state is None else Path(state))
        everybody = [*initiators, *acceptors]
        for party in everybody:
            stack.callback(party.store.close)
        definition = protocol_named(script.session.protocol)
        center = acceptors[0] if definition.topology.is_joined else initiators[0]
        _require_models(script, everybody)
        contract, _ = draft_contract(script, center, f"simulation-{script.session.seed}")
        _require_fits(contract, everybody)
        bar = stack.enter_context(RoundsBar(progress))

        def told(event: Event) -> None:
            bar.observe(event)
            if observe is not None:
                observe(event)

        result, outcome = simulate_with(script, initiators, acceptors, told)
        if script.simulation.baselines:
            result = with_metrics(result, with_baselines(script, result.metrics))
    if definition.topology.is_joined:
        left = kept_of_each(contract, sorted(initiators, key=lambda each: each.name), outcome.models)
    else:
        left = kept(center, contract, outcome)
    return Result(result.to_json(), left, bar.rounds, bar.events, center.config.own_models)


def _held(party: LocalParty) -> Splits | None:
    """A party's samples, where it has a model that came as code."""
    held = isinstance(party.config, HeldParty) and not all(isinstance(e, str) for e in party.config.own_models.values())
    data = party.holdings.data
    return data if held and isinstance(data, Splits) else None


def _require_models(script: Script, parties: Sequence[LocalParty]) -> None:
    """Has every factory that came as code make its model once, so that what is wrong with it is one line."""
    for party in parties:
        samples = _held(party)
        for name, make in party.config.own_models.items():
            if samples is None or isinstance(make, str):
                continue
            wanted = next(each for each in script.session.named_models.values() if each.name == name)
            try:
                with seeded(script.session.seed):
                    make(samples.train.input_shape, samples.train.outputs, **wanted.options)
            except Exception as error:
                raise InvalidValue(
                    f"{party.name}'s model cannot be built",
                    expected=f"a module for inputs {list(samples.train.input_shape)}, {samples.train.outputs} outputs",
                    received=f"{type(error).__name__}: {error}",
                    action="correct the factory, or its options",
                ) from error


def _require_fits(contract: Contract, parties: Sequence[LocalParty]) -> None:
    """Checks that models that came as code go with the parties' data, and with each other."""
    for name, spec in contract.models.items():
        first = None
        for party in parties:
            samples = _held(party)
            if samples is None or isinstance(party.config.own_models.get(spec.name, ""), str):
                continue
            if party.missing_weights(contract):
                # They are sent once the session is proposed.
                continue
            party.require_fitting(contract, samples)
            own_models = party.config.own_models
            size = party.sizes(contract).get(name)
            built = build_model(spec, contract.task, contract.seed, own_models, party.weights_of(contract), size=size)
            if first is not None:
                require_same(first[0], built, (first[1], party.name))
            first = first or (built, party.name)
            party.tried_task(contract)

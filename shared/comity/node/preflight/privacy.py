"""What of a node's samples is protected, and what is not, said before anything leaves."""

from __future__ import annotations

from collections.abc import Iterator

from comity.errors import ComityError
from comity.node.preflight.context import Context
from comity.node.preflight.rehearsal import rehearsed
from comity.node.preflight.rows import NotChecked, Row
from comity.node.preflight.work import Drafted, drafted
from comity.privacy.leak_guard import parallel_rows, unjudged
from comity.tasks import agreed_model

_NOT_PROTECTED = "convolutions, losses, label counts and membership are not: only differential privacy bounds those"
_SAID = {
    "guarded": f"guarded: what a single sample shows in linear layers and embeddings stays here; {_NOT_PROTECTED}",
    "dp": "dp: as guarded, and no session trains without noise; losses and choices by them are not covered",
    "public": "public: nothing is held back; for public data only",
}


def check_privacy(context: Context) -> Iterator[Row]:
    """What protects the samples; with a script, which layers of its models nobody judges, and what looks crafted."""
    if context.config.data is None:
        yield Row("privacy", "skipped", "no data to protect")
        return
    yield Row("privacy", "passed", _SAID[context.config.privacy.preset])
    if context.script is None:
        return
    try:
        session = drafted(context)
    except (ComityError, NotChecked):
        # Another row says what is wrong with it.
        return
    yield from _shown(session)
    if not context.config.privacy.guards:
        return
    if session.definition.load().training_plan is None or context.local.holdings.is_reinforcement:
        found = "nothing that this session sends is judged: a sample is an episode, or the protocol has no guard"
        yield Row("privacy", "warning", found, "rely on policy.egress and differential privacy")
        return
    yield from _backed(session)
    if beside := session.local.models_beside(session.contract):
        found = f"{', '.join(beside)} stays here; what it teaches is judged in the models that leave"
        yield Row("privacy", "passed", found)
    local, own_models = session.local, context.config.own_models
    sizes = local.sizes(session.contract)
    for name, spec in session.contract.models.items():
        model = agreed_model(
            local.name, session.contract, name, own_models, local.weights_of(session.contract), size=sizes.get(name)
        )
        if odd := unjudged(model):
            layers = ", ".join(f"{each} ({kind})" for each, kind in odd.items())
            action = "use a model without them, or agree on differential privacy"
            yield Row("privacy", "warning", f"layers of {spec.name} are not judged: {layers}", action)
        if alike := parallel_rows(model.state_dict()):
            action = "find out who built the model so: rows that are alike show single samples"
            yield Row("privacy", "warning", f"{spec.name} begins with rows that are nearly parallel: {alike}", action)


def _backed(session: Drafted) -> Iterator[Row]:
    """What of the samples stands behind each thing that is sent, and what is likely to come of that."""
    backing = session.local.backing(session.contract, session.own)
    if backing is None:
        return
    told, rounds = backing.told(session.own.samples), session.contract.rounds
    end = "the session would end there (RELEASE_REFUSED), with the model of the rounds until then"
    action = "buy fewer rounds, use larger batches, longer periods or a narrower model"
    if backing.is_thin and rounds > 1:
        found = f"{told}: of so few some may show in the course of {rounds} rounds, and {end}"
        yield Row("privacy", "warning", found, action)
        return
    tried = rehearsed(session)
    if tried is not None and tried.is_refused:
        found = f"{told}; but trained here alone, the model shows single samples in about round {tried.rounds + 1} of {rounds}, "
        found += f"once it has learned most of them, and {end}"
        yield Row("privacy", "warning", found, action)
        return
    shown = ""
    if tried is not None and tried.rounds:
        shown = f"; trained here alone for {tried.rounds} of {rounds} rounds, it showed no single sample"
    yield Row("privacy", "passed", told + shown)


def _shown(session: Drafted) -> Iterator[Row]:
    """What kinds that this node sends in a session show, whatever is held back."""
    definition = session.definition
    sent = definition.load().service.kinds_sent(by_initiator=session.own.role == definition.initiator)
    for kind, said in definition.shows.items():
        if kind in sent and kind in session.contract.egress:
            action = f"leave {kind} out of policy.egress where that is not acceptable"
            yield Row("privacy", "warning", f"{kind} that leave show {said}", action)

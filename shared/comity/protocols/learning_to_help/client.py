"""The client: keeps its model, and asks the server where its rejector says so."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from comity import faults
from comity.contract import Json
from comity.errors import MalformedMessage, NonFiniteValue, PolicyRefusal
from comity.inference.offers import OFFERS, Offers
from comity.ledger.ledger import WHOLE
from comity.protocols.learning_to_help.algorithm import rejector_scores
from comity.protocols.learning_to_help.drift import ServingReport
from comity.protocols.learning_to_help.evaluation import by_reject_rate, evaluate, report
from comity.protocols.learning_to_help.features import Quantization
from comity.protocols.learning_to_help.messages import Helping, metered
from comity.protocols.learning_to_help.questions import Questions
from comity.protocols.learning_to_help.reject_rate import RejectRule, fit_reject_rule
from comity.protocols.learning_to_help.rejecting import OwnTraining
from comity.protocols.learning_to_help.serving import ClientModel, Serving
from comity.protocols.learning_to_help.settings import Settings
from comity.protocols.learning_to_help.task import LOCAL, REJECTOR, HelpTask, helping_terms
from comity.protocols.learning_to_help.training import Costs
from comity.session.contexts import PeerContext
from comity.session.events import Event
from comity.session.metering.requests import RequestMeter
from comity.session.outcome import Outcome
from comity.tensors import Layout


class Client:
    """The asking role. Its state follows from its journal.

    Records: `trained` with the model and the range of its features, `learned` with the rejector, those of `OwnTraining`, `fitted` with the rule,
    those of `RequestMeter`, `finished`, with the decisions and answers of a round: of so many test samples, `served` with
    what was predicted for applications, and `concluded`.

    Args:
        context: This party's place opposite the server.
        server: The server, in process or over the network.
    """

    def __init__(self, context: PeerContext, server: Helping) -> None:
        self._terms = helping_terms(context.contract)
        self._context = context
        self._server = server
        self._task: HelpTask = context.task
        self._compares = isinstance(context.settings, Settings) and context.settings.compare
        self._meter = RequestMeter(context, metered(self._terms.requests))
        self._questions = Questions(server, self._meter, self._task.classes)
        self._own = OwnTraining(context, server, self._questions)
        self._local: bytes | None = None
        self._rejector: bytes | None = None
        self._quantization: Quantization | None = None
        self._rule: RejectRule | None = None
        self._promised: float | None = None
        self._finished: list[dict[str, Any]] = []
        self._calibrated = 0
        self._served: dict[str, int] | None = None
        self._is_concluded = False
        for record in context.journal.records():
            self._replay(record.kind, record.fields)

    def work(self) -> Iterator[None]:
        """Has the rejector made, fits the reject rule, and answers the test samples of what is left of the rounds."""
        local, quantization = self._trained()
        self._load(LOCAL, local)
        if self._terms.training == "server":
            self._load(REJECTOR, self._learned(local, quantization))
            yield
        else:
            yield from self._train_rejector(local, quantization)
        rule = self._fitted(quantization)
        yield
        rounds = self._context.contract.rounds
        for round in range(len(self._finished) + 1, rounds + 1):
            self._answer_round(round, rule, quantization)
            yield
        offers = self._context.services.get(OFFERS)
        if self._terms.serves and isinstance(offers, Offers):
            self._serve(offers, ClientModel(self._task, rule, quantization))

    def _serve(self, offers: Offers, model: ClientModel) -> None:
        """Predicts for applications until the operator ends the session, and settles."""
        if not self._is_concluded:
            report = ServingReport(self._promised, self._calibrated, Counter(self._served or {}))
            serving = Serving(self._context, self._server, offers, model, self._meter, report)
            serving.run()
            self._served = serving.counts
            self._context.journal.append("concluded", 0)
            self._is_concluded = True
        while self._meter.settle(self._server):
            pass

    def outcome(self) -> Outcome:
        """The rejector beside the model that it was made for, with what both parties were worth together."""
        made = {
            name: digest for name, digest in ((LOCAL, self._local), (REJECTOR, self._rejector)) if digest is not None
        }
        models = tuple(self._context.blobs.get(each) for each in made.values())
        return Outcome(models, self._metrics(), names=tuple(made))

    def _replay(self, kind: str, fields: Mapping[str, Any]) -> None:
        match kind:
            case "trained":
                self._local = bytes.fromhex(fields["local"])
                self._quantization = Quantization(fields["minimum"], fields["maximum"])
            case "learned":
                self._rejector = bytes.fromhex(fields["rejector"])
            case "fitted":
                threshold = fields["threshold"]
                never = float("inf") if fields["never"] else float("-inf")
                self._rule = RejectRule(never if threshold is None else threshold, fields["tie_probability"])
                self._promised, self._calibrated = fields["promised"], fields["calibrated"]
            case "served":
                self._served = {name: value for name, value in fields.items() if isinstance(value, int)}
            case "concluded":
                self._is_concluded = True
            case "predicted" | "stepped":
                self._own.replay(kind, fields)
            case "finished":
                self._finished.append(dict(fields))

    def _trained(self) -> tuple[bytes, Quantization]:
        """The client's model, durable before it leaves, and the range of its features."""
        if self._local is None or self._quantization is None:
            state = self._task.local
            blob = self._task.layouts[LOCAL].pack(state)
            self._task.load(LOCAL, state)
            quantization = self._task.quantization()
            faults.point("training")
            local = self._context.blobs.release(blob, "local_model", WHOLE).digest
            fields: dict[str, Json] = {
                "local": local.hex(),
                "minimum": quantization.minimum,
                "maximum": quantization.maximum,
            }
            self._context.journal.append("trained", 0, **fields)
            self._replay("trained", fields)
            return local, quantization
        return self._local, self._quantization

    def _learned(self, local: bytes, quantization: Quantization) -> bytes:
        """The rejector that the server made."""
        if self._rejector is None:
            asked = self._server.learn(local, quantization.minimum, quantization.maximum)
            rejector = asked.result()
            if rejector is None:
                raise MalformedMessage(
                    "the server gives no rejector", expected="the one that it trained", received="none"
                )
            self._server.acknowledge(0)
            self._took(rejector)
            return rejector
        return self._rejector

    def _train_rejector(self, local: bytes, quantization: Quantization) -> Iterator[None]:
        """Trains the rejector at home."""
        if self._rejector is None:
            self._server.learn(local, quantization.minimum, quantization.maximum).result()
            yield from self._own.work(self._task.own_rejector(quantization))
            self._took(self._own.rejector())
        self._load(REJECTOR, self._rejector or b"")

    def _took(self, rejector: bytes) -> None:
        fields: dict[str, Json] = {"rejector": rejector.hex()}
        self._context.journal.append("learned", 0, **fields)
        self._replay("learned", fields)
        self._context.observe(Event("rejector-learned", 0, {}))

    def _load(self, name: str, digest: bytes) -> None:
        self._task.load(name, Layout.unpack(self._context.blobs.get(digest)))

    def _fitted(self, quantization: Quantization) -> RejectRule:
        """Finds the threshold on calibration samples: of the client's own, and never on those it is tested on."""
        if self._rule is not None:
            return self._rule
        if self._task.labels("calibration") is None:
            if self._terms.reject_rate < 1:
                raise PolicyRefusal(
                    "a bounded reject rate needs calibration samples",
                    expected="[data.splits.calibration] in node.toml",
                    received="none",
                    action="give a share of the training samples, for example share = 0.2",
                )
            rule, promised, calibrated = RejectRule(0.0, 0.0), None, 0
        else:
            _, judged, _ = self._features(self._task.inputs("calibration"), quantization)
            scores = rejector_scores(self._task.scores(judged)).cpu()
            if not bool(torch.isfinite(scores).all()):
                raise NonFiniteValue("scores of the rejector", expected="finite values", received="NaN or infinity")
            bounded = fit_reject_rule(scores, self._terms.reject_rate)
            # The rejector's own threshold is 0; a bound can only raise it.
            rule = bounded if bounded.threshold >= 0 else RejectRule(0.0, 0.0)
            calibrated = len(scores)
            promised = float((scores > rule.threshold).double().mean())
            promised += rule.tie_probability * float((scores == rule.threshold).double().mean())
        finite = abs(rule.threshold) != float("inf")
        fields: dict[str, Json] = {
            "threshold": rule.threshold if finite else None,
            "never": rule.threshold > 0,
            "tie_probability": rule.tie_probability,
            "promised": promised,
            "calibrated": calibrated,
        }
        self._context.journal.append("fitted", 0, **fields)
        self._replay("fitted", fields)
        return rule

    def _features(self, inputs: Tensor, quantization: Quantization) -> tuple[Tensor, Tensor, Tensor]:
        """What m says, what r goes by, and the features as they cross."""
        said, features = self._task.map(inputs)
        steps = quantization.encode(features)
        judged = self._task.judged(inputs, said, quantization.decode(steps))
        return said.argmax(dim=1).cpu(), judged, steps.cpu()

    def _answer_round(self, round: int, rule: RejectRule, quantization: Quantization) -> None:
        """Decides and answers a round's share of the test samples."""
        began, rounds = time.monotonic(), self._context.contract.rounds
        every = self._task.labels("test")
        if every is None:
            raise MalformedMessage(
                "there is nothing to answer",
                expected="test samples: a source that has them, or [data.splits.test]",
                received="none",
                action="configure them in node.toml",
            )
        share = torch.arange((round - 1) * len(every) // rounds, round * len(every) // rounds)
        local, judged, steps = self._features(self._task.inputs("test", share), quantization)
        scores = rejector_scores(self._task.scores(judged)).cpu()
        remote = rule.decide(scores, self._task.chance(round))
        wanted = torch.ones_like(remote) if self._compares else remote
        answers = self._questions.ask(self._first(round), steps[wanted])
        server = torch.full((len(share),), -1, dtype=torch.int64)
        server[wanted] = answers
        faults.point("evaluation")
        asked = remote & (server >= 0)
        labels = every[share]
        joint = torch.where(asked, server, local)
        fields: dict[str, Json] = {
            "local": local.tolist(),
            "server": server.tolist(),
            "remote": asked.tolist(),
            "scores": scores.tolist(),
            "refused": int((answers < 0).sum()),
            "reject_rate": float(asked.double().mean()),
            "accuracy": float((joint == labels).double().mean()),
            "local_accuracy": float((local == labels).double().mean()),
            "requests": self._meter.charged,
            "seconds": time.monotonic() - began,
        }
        self._context.journal.append("finished", round, **fields)
        self._replay("finished", fields)
        told = {name: value for name, value in fields.items() if name not in {"local", "server", "remote", "scores"}}
        self._context.observe(Event("round-finished", round, told))

    def _first(self, round: int) -> int:
        """Number of a round's first request: after all that was asked in training, and in earlier rounds."""
        before = sum(sum(each >= 0 for each in done["server"]) for done in self._finished[: round - 1])
        return 1 + self._own.asked + before

    def _metrics(self) -> dict[str, Json]:
        labels = self._task.labels("test")
        rounds = self._finished
        charged = self._meter.charged
        metrics: dict[str, Json] = {
            "accuracy_by_round": [each["accuracy"] for each in rounds],
            "local_accuracy_by_round": [each["local_accuracy"] for each in rounds],
            "reject_rate_by_round": [each["reject_rate"] for each in rounds],
            "requests": charged,
            "refused": sum(each["refused"] for each in rounds),
            "reject_rate_promised": self._promised,
            "bytes_per_request": self._task.feature_size,
        }
        if self._own.steps:
            metrics["rejector_steps"] = [
                {"first": each.first, "last": each.last, "copy": each.copy} for each in self._own.steps
            ]
        if self._served is not None:
            metrics["served"] = dict(self._served)
        if labels is None or not rounds:
            return metrics
        said = {
            name: torch.tensor([value for each in rounds for value in each[name]])
            for name in ("local", "server", "remote")
        }
        missing = sorted(set(range(self._task.classes)) - set(self._own_classes()))
        found = evaluate(
            said["remote"].bool(),
            said["local"],
            torch.where(said["server"] >= 0, said["server"], said["local"]),
            labels[: len(said["local"])],
            Costs(self._terms.c_e, self._terms.c_1, self._terms.form),
            missing_class=missing[0] if len(missing) == 1 else None,
        )
        scores = torch.tensor([value for each in rounds for value in each["scores"]])
        rates, accuracy = by_reject_rate(scores, said["local"], said["server"], labels[: len(scores)])
        metrics |= {"reject_rates": [*rates], "accuracy_by_reject_rate": [*accuracy]}
        return metrics | report(found, compared=self._compares)

    def _own_classes(self) -> list[int]:
        labels = self._task.labels("train")
        return [] if labels is None else labels.unique().tolist()

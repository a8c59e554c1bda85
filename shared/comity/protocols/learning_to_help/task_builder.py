"""How a party's models and samples become its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Contract, ModelSpec, TaskSpec, Terms
from comity.data import Splits
from comity.errors import MalformedMessage, TaskMismatch
from comity.models import OwnModels
from comity.protocol.implementation import Resources, TaskBuilder
from comity.protocols.learning_to_help.features import feature_shape
from comity.protocols.learning_to_help.task import LOCAL, REJECTOR, SERVER, HelpTask, helping_terms
from comity.protocols.learning_to_help.terms import LearningToHelpTerms
from comity.tasks import ModelSize, build_model, model_outline


class HelpTaskBuilder(TaskBuilder):
    """See `TaskBuilder`."""

    def sizes(
        self, terms: Terms, task: TaskSpec, models: Mapping[str, ModelSpec], own: OwnModels
    ) -> Mapping[str, ModelSize]:
        """See `TaskBuilder.sizes`: e and r go by the features of m."""
        if not isinstance(terms, LearningToHelpTerms):
            raise MalformedMessage("the terms are another protocol's", expected="learning_to_help", received="others")
        local = model_outline(models[LOCAL], task, own) or build_model(models[LOCAL], task, 0, own)
        shape, classes = feature_shape(local, terms.features, task.inputs.shape), task.heads[0].size
        judged = {"features": shape, "scores": (classes,), "inputs": task.inputs.shape}[terms.rejects_on]
        return {SERVER: ModelSize(shape, classes), REJECTOR: ModelSize(judged, 2)}

    def models_beside(self, contract: Contract, party: str, settings: Any) -> Sequence[str]:
        """See `TaskBuilder.models_beside`: a model that answers in place of the contract's."""
        del settings
        terms = helping_terms(contract)
        return (terms.legacy,) if terms.needs_legacy(is_client=party == contract.initiator) else ()

    def build(self, contract: Contract, resources: Resources) -> HelpTask:
        """See `TaskBuilder.build`."""
        if not isinstance(resources.data, Splits):
            raise TaskMismatch(
                "learning to help is for samples",
                expected="[data] with samples",
                received="none",
                action="configure [data] in node.toml",
            )
        return HelpTask(contract, resources)

    def try_out(self, contract: Contract, task: HelpTask) -> None:
        """See `TaskBuilder.try_out`."""
        del contract
        task.try_out()

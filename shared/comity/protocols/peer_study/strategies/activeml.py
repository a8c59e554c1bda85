"""scikit-activeml and peer study: its strategies asked as ours are, and our score asked as its strategies are.

Its strategies take features and a classifier: here the task model's features before its last layer, and that layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.pool import Badge, Clue, CoreSet, Falcun, TypiClust, UncertaintySampling
from skactiveml.utils import MISSING_LABEL, simple_batch
from sklearn.base import clone
from torch import Tensor

from comity.errors import InvalidValue
from comity.protocols.peer_study.algorithm import discrepancy
from comity.protocols.peer_study.strategies.features import features, last_layer
from comity.protocols.peer_study.strategies.strategy import Question
from comity.randomness import derive

_LEAST = float(np.finfo(np.float64).tiny)
"""What a chance of 0, as trees say it, is taken for: of its logarithm no discrepancy can be made."""


class LastLayer(SkactivemlClassifier):  # type: ignore[misc]
    """The task model's last layer as a classifier of features; it is trained already.

    Args:
        weight: Its weights, `[classes, hidden]`.
        bias: Its biases.
        classes: The classes, in order.
        missing_label: What stands where a label is not known.
        cost_matrix: See `SkactivemlClassifier`.
        random_state: See `SkactivemlClassifier`.
    """

    def __init__(
        self,
        weight: Any = None,
        bias: Any = None,
        classes: Any = None,
        missing_label: Any = MISSING_LABEL,
        cost_matrix: Any = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            classes=classes, missing_label=missing_label, cost_matrix=cost_matrix, random_state=random_state
        )
        self.weight = weight
        self.bias = bias

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LastLayer:  # noqa: ARG002, N803
        """Takes note of the classes."""
        self.classes_ = np.asarray(self.classes)
        return self

    def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:  # noqa: N803
        """The layer's softmax."""
        logits = torch.from_numpy(np.asarray(X)) @ self.weight.T + self.bias
        found: NDArray[Any] = logits.softmax(dim=1).numpy()
        return found


class FromActiveMl:
    """One of scikit-activeml's strategies, asked as ours are.

    Args:
        make: Makes it for a seed.
    """

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """See `Strategy.select`.

        Raises:
            InvalidValue: The task model has no fully connected layer.
        """
        candidates, labelled, layer = question.candidates, question.labelled, last_layer(question.task_model)
        found = features(question.task_model, question.pool, candidates, question.block).hidden
        known = found[:0]
        if len(labelled):
            known = features(question.task_model, question.pool, labelled.indices, question.block).hidden
        inputs = torch.cat([known, found]).double().cpu().numpy()
        labels = np.concatenate([labelled.labels.double().cpu().numpy(), np.full(len(found), np.nan)])
        strategy = self._make(derive(question.seed, "scikit-activeml") % 2**32)
        given: dict[str, Any] = {"batch_size": question.budget}
        weight, bias = layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu()
        classifier = LastLayer(weight, bias, classes=[*range(question.classes)]).fit(inputs, labels)
        # Those that ask a classifier call it the one or the other.
        for name in {"clf", "estimator"} & {*inspect.signature(strategy.query).parameters}:
            given |= {name: classifier, f"fit_{name}": False}
        chosen = torch.as_tensor(np.asarray(strategy.query(inputs, labels, **given)), dtype=torch.int64)
        return candidates[chosen - len(known)]


ACTIVE_ML: Mapping[str, Callable[[int], Any]] = {
    "badge": lambda seed: Badge(random_state=seed),
    "clue": lambda seed: Clue(random_state=seed, cluster_algo_dict={"random_state": seed}),
    "core_set": lambda seed: CoreSet(random_state=seed),
    "entropy": lambda seed: UncertaintySampling(method="entropy", random_state=seed),
    "falcun": lambda seed: Falcun(random_state=seed),
    "margin": lambda seed: UncertaintySampling(method="margin_sampling", random_state=seed),
    "typi_clust": lambda seed: TypiClust(random_state=seed),
}
"""Its strategies that need nothing but features and a classifier, by name."""


def from_activeml(name: str) -> FromActiveMl:
    """One of its strategies.

    Raises:
        InvalidValue: There is none of that name here.
    """
    if name not in ACTIVE_ML:
        raise InvalidValue("A strategy of scikit-activeml's", expected=" or ".join(ACTIVE_ML), received=name)
    return FromActiveMl(ACTIVE_ML[name])


class PeerStudyQuery(SingleAnnotatorPoolQueryStrategy):  # type: ignore[misc]
    """Peer study's score, eq. (6), as one of scikit-activeml's strategies: asks for what an ensemble disagrees on most.

    Args:
        missing_label: What stands where a label is not known.
        random_state: Decides between equal scores.
    """

    def __init__(self, missing_label: Any = MISSING_LABEL, random_state: Any = None) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)

    def query(  # noqa: PLR0913, PLR0917 - its siblings'
        self,
        X: Any,  # noqa: N803
        y: Any,
        ensemble: Sequence[Any],
        fit_ensemble: bool = True,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Which candidates to label next.

        Args:
            X: Samples, labelled and not.
            y: Their labels, `missing_label` where there is none.
            ensemble: The peers: classifiers with `predict_proba`.
            fit_ensemble: Whether copies of them are trained on what is labelled first.
            candidates: See `SingleAnnotatorPoolQueryStrategy.query`.
            batch_size: How many.
            return_utilities: Whether the scores are wanted, too.

        Returns:
            Indices, and the scores where they are wanted.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(  # noqa: N806
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        among, mapping = self._transform_candidates(candidates, X, y)
        peers = [clone(each).fit(X, y) for each in ensemble] if fit_ensemble else ensemble
        chances = np.stack([np.asarray(each.predict_proba(among), dtype=np.float64) for each in peers])
        scores = discrepancy(torch.from_numpy(chances).clamp(min=_LEAST).log()).numpy()
        utilities = scores
        if mapping is not None:
            utilities = np.full(len(X), np.nan)
            utilities[mapping] = scores
        return simple_batch(utilities, self.random_state_, batch_size=batch_size, return_utilities=return_utilities)

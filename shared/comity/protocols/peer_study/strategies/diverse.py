"""Strategies that want samples unlike each other: Core-set, BADGE and ALFA-Mix; of a block only features stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from comity.protocols.peer_study.strategies.features import Features, features, last_layer
from comity.protocols.peer_study.strategies.strategy import Question
from comity.randomness import derive, generator


class CoreSet:
    """k-centre greedy: what is farthest from all that is labelled or chosen, by the task model's features.

    Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.
    """

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """One after the other, of equal distances that of least index."""
        candidates = question.candidates.sort().values
        hidden = features(question.task_model, question.pool, candidates, question.block).hidden
        if len(question.labelled):
            centres = features(question.task_model, question.pool, question.labelled.indices, question.block).hidden
            nearest = torch.cat([torch.cdist(some, centres).amin(dim=1) for some in hidden.split(question.block)])
        else:
            # Nothing is near: the first centre is the candidate nearest to the middle of all.
            nearest = -(hidden - hidden.mean(dim=0)).norm(dim=1)
        chosen: list[int] = []
        while len(chosen) < question.budget:
            first = int(nearest.argmax())
            away = (hidden - hidden[first]).norm(dim=1)
            nearest = torch.minimum(nearest, away) if chosen or len(question.labelled) else away
            chosen.append(first)
            nearest[chosen] = -math.inf
        return candidates[torch.tensor(chosen)]


class Badge:
    """k-means++ on the gradients of the last layer, (p - onehot) outer h, as the task model's own guess would give them.

    Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020. The products are never
    formed: <a ⊗ h, b ⊗ g> = <a, b> <h, g>, so that memory is O(n (C + H)).
    """

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """The longest gradient first, then each by its squared distance from what is chosen."""
        candidates = question.candidates.sort().values
        found = features(question.task_model, question.pool, candidates, question.block)
        draws = generator(derive(question.seed, "badge"))
        return candidates[plus_plus(_errors(found), found.hidden, question.budget, draws)]


@dataclass(frozen=True, slots=True)
class AlfaMix:
    """Samples whose class a little of a labelled one's features would change, spread out by k-means.

    Parvaneh et al., "Active Learning by Feature Mixing", CVPR 2022, in its closed form: each class's mean feature is mixed
    in as far as `alpha_cap` lets it.

    Attributes:
        alpha_cap: The most of a mean feature that is mixed in, above 0.
    """

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False
    alpha_cap: float = 0.2

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """The nearest to each centre; where fewer can be changed, others by chance."""
        candidates = question.candidates.sort().values
        found = features(question.task_model, question.pool, candidates, question.block)
        known = features(question.task_model, question.pool, question.labelled.indices, question.block)
        unsteady = self._unsteady(question, found, known).nonzero().flatten()
        taken = min(question.budget, len(unsteady))
        chosen = unsteady[central(normalize(found.hidden[unsteady], dim=1), taken, question.seed)]
        draws = generator(derive(question.seed, "alfa mix"))
        order = torch.randperm(len(candidates), generator=draws)
        others = order[~torch.isin(order, chosen)][: question.budget - taken]
        return candidates[torch.cat([chosen, others])]

    def _unsteady(self, question: Question, found: Features, known: Features) -> Tensor:
        """Which of the candidates are told otherwise when some class is mixed in."""
        head = last_layer(question.task_model)
        said = found.logits.argmax(dim=1)
        # The gradient of the cross-entropy of the guess, at the features.
        gradients = _errors(found) @ head.weight.detach()
        bound = self.alpha_cap / math.sqrt(head.in_features)
        changed = torch.zeros(len(found), dtype=torch.bool)
        for each in question.labelled.labels.unique():
            toward = known.hidden[question.labelled.labels == each].mean(dim=0) - found.hidden
            # Eq. (7): as far along the gradient as the bound lets it; a feature that does not move is left alone.
            share = bound * toward.norm(dim=1, keepdim=True) / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
            alpha = share * gradients / torch.where(toward.abs() < 1e-8, math.inf, toward)
            with torch.no_grad():
                changed |= head(found.hidden + alpha * toward).argmax(dim=1) != said
        return changed


def plus_plus(
    errors: Float[Tensor, "n classes"], hidden: Float[Tensor, "n hidden"], count: int, draws: torch.Generator
) -> Int[Tensor, " count"]:
    """k-means++ seeding on outer products of the rows, which are not formed.

    Args:
        errors: One factor.
        hidden: The other.
        count: How many, at most n.
        draws: What chance is drawn from.

    Returns:
        Indices, each once; the first has the greatest norm.
    """
    errors, hidden = errors.double(), hidden.double()
    norms = errors.square().sum(dim=1) * hidden.square().sum(dim=1)
    chosen = [int(norms.argmax())]
    nearest = torch.full_like(norms, math.inf)
    while len(chosen) < count:
        last = chosen[-1]
        products = (errors @ errors[last]) * (hidden @ hidden[last])
        nearest = torch.minimum(nearest, (norms + norms[last] - 2 * products).clamp(min=0))
        nearest[chosen] = 0
        chances = nearest
        if not float(nearest.sum()) > 0:
            # All that are left are as those that are chosen.
            chances = torch.ones_like(nearest)
            chances[chosen] = 0
        chosen.append(int(torch.multinomial(chances, 1, generator=draws)))
    return torch.tensor(chosen[:count])


def central(points: Float[Tensor, "n hidden"], count: int, seed: int) -> Int[Tensor, " count"]:
    """The points nearest to the centres of `count` clusters, each once; of clusters without a point, others in order."""
    if count in (0, len(points)):
        return torch.arange(count)
    distinct = len(points.unique(dim=0))
    clusters = KMeans(min(count, distinct), n_init=1, random_state=derive(seed, "clusters") % 2**32).fit(
        points.double().numpy()
    )
    labels = torch.from_numpy(clusters.labels_).long()
    away = (points.double() - torch.from_numpy(clusters.cluster_centers_)[labels]).norm(dim=1)
    order = away.argsort(stable=True)
    # First of each cluster, and then whatever comes next.
    seen: set[int] = set()
    first: list[int] = []
    later: list[int] = []
    for each in order.tolist():
        (later if int(labels[each]) in seen else first).append(each)
        seen.add(int(labels[each]))
    return torch.tensor((first + later)[:count])


def _errors(found: Features) -> Float[Tensor, "n classes"]:
    """What the task model is told to be wrong by: p - onehot of its own guess."""
    return found.logits.softmax(dim=1) - one_hot(found.logits.argmax(dim=1), found.logits.shape[1])

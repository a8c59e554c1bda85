"""Strategies that train something of their own to choose with: LL4AL and VAAL; of a block only scores stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, relu

from comity import interruption
from comity.errors import InvalidValue
from comity.protocols.peer_study.pool import in_blocks
from comity.protocols.peer_study.strategies.features import features
from comity.protocols.peer_study.strategies.scores import greatest
from comity.protocols.peer_study.strategies.strategy import Question
from comity.randomness import derive, generator, seeded


@dataclass(frozen=True, slots=True)
class LearnedLoss:
    """LL4AL: the samples with the greatest predicted loss, of a draw of 10,000 candidates.

    Yoo and Kweon, "Learning Loss for Active Learning", CVPR 2019. The module that predicts learns from the task model's
    features after it was trained, and no gradient reaches the task model; in the paper both are trained together for the
    first 120 of 200 epochs.

    Attributes:
        subset: So many candidates are drawn, and scored.
        margin: By which the predictions of a pair are to be apart.
        steps: Of the module's training.
        batch_size: Labelled samples a step, half as many pairs.
    """

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False
    subset: int = 10_000
    margin: float = 1.0
    steps: int = 200
    batch_size: int = 128

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """The greatest predicted losses.

        Raises:
            InvalidValue: Fewer than two samples are labelled: no pair can be ranked.
        """
        if len(question.labelled) < 2:
            raise InvalidValue(
                "Labelled samples to rank losses of", expected="2 or more", received=len(question.labelled)
            )
        known = features(question.task_model, question.pool, question.labelled.indices, question.block)
        losses = cross_entropy(known.logits, question.labelled.labels, reduction="none")
        draws = generator(derive(question.seed, "learned loss"))
        predictor = self._fitted(known.hidden, losses, question.seed, draws)
        candidates = question.candidates.sort().values
        drawn = torch.randperm(len(candidates), generator=draws)[: max(self.subset, question.budget)]
        candidates = candidates[drawn.sort().values]
        scores = []
        with torch.no_grad():
            for some in candidates.split(question.block):
                hidden = features(question.task_model, question.pool, some, question.block).hidden
                scores.append(predictor(hidden).flatten())
        return candidates[torch.cat(scores).sort(descending=True, stable=True).indices[: question.budget]]

    @staticmethod
    def predictor(features: int) -> nn.Module:
        """The module that predicts a loss from so many features."""
        return nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 1))

    def _fitted(
        self, hidden: Float[Tensor, "n hidden"], losses: Float[Tensor, " n"], seed: int, draws: torch.Generator
    ) -> nn.Module:
        """The module, trained to rank pairs of losses."""
        with seeded(derive(seed, "loss module")):
            predictor = self.predictor(hidden.shape[1])
        optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-3)
        for _ in range(self.steps):
            interruption.point()
            batch = torch.randperm(len(losses), generator=draws)[: self.batch_size]
            one, other = batch[: len(batch) // 2], batch[len(batch) // 2 :][: len(batch) // 2]
            sign = (losses[one] - losses[other]).sign()
            predicted = predictor(hidden[one]).flatten() - predictor(hidden[other]).flatten()
            optimizer.zero_grad()
            relu(self.margin - sign * predicted).mean().backward()
            optimizer.step()
        return predictor


@dataclass(frozen=True, slots=True)
class Vaal:
    """VAAL: the samples that a discriminator takes least for labelled ones, by a latent code of 32 numbers.

    Sinha, Ebrahimi and Darrell, "Variational Adversarial Active Learning", ICCV 2019. Here encoder and decoder are fully
    connected, so that samples of any shape will do; the paper's are convolutions. The task model is not asked.

    Attributes:
        steps: Of coder and discriminator, in turns.
        batch_size: Labelled samples a step, and candidates.
    """

    needs_pool_on_server: ClassVar[bool] = True
    uses_students: ClassVar[bool] = False
    steps: int = 200
    batch_size: int = 64

    def select(self, question: Question) -> Int[Tensor, " budget"]:
        """The lowest scores.

        Raises:
            InvalidValue: Nothing is labelled.
        """
        if not len(question.labelled):
            raise InvalidValue("Labelled samples to tell others from", expected="1 or more", received=0)
        draws = generator(derive(question.seed, "vaal"))
        candidates = question.candidates.sort().values
        size = question.pool.read(candidates[:1]).numel()
        with seeded(derive(question.seed, "vaal weights")):
            coder, judge = self.models(size)

        def batch(indices: Tensor) -> Tensor:
            some = indices[torch.randperm(len(indices), generator=draws)[: self.batch_size]]
            return in_blocks(question.pool, some, lambda inputs: inputs.flatten(start_dim=1), question.block)

        of_coder = torch.optim.Adam(coder.parameters(), lr=1e-3)
        of_judge = torch.optim.Adam(judge.parameters(), lr=1e-3)
        for _ in range(self.steps):
            interruption.point()
            labelled, others = batch(question.labelled.indices), batch(candidates)
            codes, loss = [], torch.zeros(())
            for inputs in (labelled, others):
                mean, code, of_inputs = coder.loss(inputs, draws)
                codes.append(mean)
                # Everything is to look as if it were labelled.
                loss = loss + of_inputs + _judged(judge, code, is_labelled=True)
            of_coder.zero_grad()
            loss.backward()
            of_coder.step()
            of_judge.zero_grad()
            told = [_judged(judge, code.detach(), is_labelled=not place) for place, code in enumerate(codes)]
            torch.stack(told).sum().backward()
            of_judge.step()
        return greatest(question, lambda inputs: -judge(coder.encode(inputs.flatten(start_dim=1))[0]).flatten())

    @staticmethod
    def models(size: int) -> tuple[_Coder, nn.Module]:
        """The coder of samples of so many numbers, and the discriminator of its codes."""
        return _Coder(size), _judge()


class _Coder(nn.Module):
    """A variational autoencoder of flat samples."""

    def __init__(self, size: int, latent: int = 32, width: int = 256) -> None:
        super().__init__()
        self._encoder = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, 2 * latent))
        self._decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, size))

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the codes."""
        mean, spread = self._encoder(inputs).chunk(2, dim=1)
        return mean, spread

    def loss(self, inputs: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The codes' means, a draw of codes, and the error of what is decoded with the codes' divergence from normal."""
        mean, spread = self.encode(inputs)
        code = mean + (spread / 2).exp() * torch.randn(mean.shape, generator=draws)
        divergence = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(dim=1).mean()
        error = mse_loss(self._decoder(code), inputs, reduction="sum") / len(inputs)
        return mean, code, error + divergence


def _judge(latent: int = 32, width: int = 128) -> nn.Module:
    return nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def _judged(judge: nn.Module, codes: Tensor, *, is_labelled: bool) -> Tensor:
    said = judge(codes).flatten()
    return binary_cross_entropy_with_logits(said, torch.full_like(said, float(is_labelled)))

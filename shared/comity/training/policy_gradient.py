"""Training and evaluating a policy in a party's own games: the local side of AssistPG.

Algorithm 2 of Chen et al., "Assisted Learning for Organizations with Limited Imbalanced Data", TMLR 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from comity.contract import Json
from comity.environments import Draws, EnvironmentSet, Episodes, Policy, play
from comity.errors import InvalidValue, TaskMismatch, TrainingDiverged
from comity.tensors import Layout, State
from comity.training.optimizers import build_optimizer, set_rate
from comity.training.samples import Secret
from comity.training.terms import OptimizerSpec
from comity.training.trajectories import Resume, Snapshot, sampled

Baseline = Literal["none", "mean", "normalized"]
"""What is taken off a return before it weighs its episode: nothing, as the paper writes it; the mean return of the batch's
other episodes, which leaves the expectation of the gradient as it is; or the mean of the batch, the rest divided by the
batch's standard deviation, which does not."""

_MOST_EPISODES = 2**17
"""Of an evaluation; their chance is kept in memory."""


class PolicyGradient:
    """A party's local task: a policy, and games that stay here.

    A sample is an episode: always the same game, start and noise for the same index, so that all models of a session are
    compared on the same luck. Its loss is what its discounted return lacks of the best one, at or above 0: the model of
    least global loss is that of greatest J(θ), and a loss over some of the samples is a lower bound of that over all.

    Rollouts and policy are on the CPU: both are tiny.

    Args:
        model: The policy; from observations to scores of the actions. Its weights are where every session begins.
        environments: The party's games.
        discount: γ of the return, in (0, 1].
        baseline: What is taken off a return in training.
        batch_size: Episodes in a training step; they go round the games.
        evaluation_episodes: Episodes of each game in an evaluation.
        evaluation_batch_size: Episodes that are played at once in an evaluation.
        secret: The node's randomness in the session.
        best_return: A discounted return that no episode exceeds; None for what the environment says.

    Raises:
        TaskMismatch: The policy does not fit the environment's spaces.
        InvalidValue: A number is out of its range.
    """

    def __init__(  # noqa: PLR0913
        self,
        model: nn.Module,
        environments: EnvironmentSet,
        *,
        discount: float,
        baseline: Baseline,
        batch_size: int,
        evaluation_episodes: int,
        evaluation_batch_size: int,
        secret: Secret,
        best_return: float | None = None,
    ) -> None:
        games = len(environments.parameters)
        if not 0 < discount <= 1:
            raise InvalidValue("The discount", expected="above 0, at most 1", received=discount)
        if baseline != "none" and batch_size <= 1:
            raise InvalidValue(f"Episodes a step for baseline {baseline!r}", expected="2 or more", received=batch_size)
        if not 1 <= evaluation_episodes <= _MOST_EPISODES // games:
            expected = f"1 to {_MOST_EPISODES // games} for each of {games} games"
            raise InvalidValue("Episodes of an evaluation", expected=expected, received=evaluation_episodes)
        _require_fit(model, environments)
        self.layout = Layout.of(model.state_dict())
        self.initial_state: State = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.evaluation_batch_size = evaluation_batch_size
        self._environments = environments
        self._discount = discount
        self._baseline: Baseline = baseline
        self._batch_size = batch_size
        self._secret = secret
        self._model = model.train()
        # In float64 the rounding that a batch's size brings cannot turn an action, and with it an episode.
        self._player = copy.deepcopy(model).double().eval().requires_grad_(False)
        self._best_return = environments.environment.best_return(discount) if best_return is None else best_return
        self._evaluation = Draws.make(
            environments.environment,
            np.tile(environments.parameters, evaluation_episodes),
            secret.seed("evaluation episodes"),
        )

    is_guarded = False
    """A sample is an episode: nothing is judged."""

    @property
    def samples(self) -> int:
        """Episodes of an evaluation."""
        return len(self._evaluation)

    @property
    def judged(self) -> int:
        """Episodes over which losses are."""
        return self.samples

    def trajectory(
        self,
        state: State,
        spec: OptimizerSpec,
        *,
        iterations: int,
        period: int,
        round: int,
        resume: Resume | None = None,
    ) -> Iterator[Snapshot]:
        """Trains by policy gradient and yields the model at iterations 0, I, 2I, … below T, the first being `state`.

        Args:
            state: Model to start from, or to go on from.
            spec: The optimiser, made anew.
            iterations: T, at least 1.
            period: The sampling period I, at least 1.
            round: Round that the training belongs to; decides the episodes.
            resume: Where an earlier training stopped, `state` being its model there; what was yielded is not again.

        Yields:
            Models with what is needed to go on from them. The tensors are the live ones: copy what is to be kept.

        Raises:
            TrainingDiverged: The policy's scores became NaN or infinite.
            NonFiniteValue: An environment gave a reward that is not finite.
        """
        self._model.load_state_dict(state)
        optimizer = build_optimizer(spec, self._model.parameters())

        def step(iteration: int) -> None:
            set_rate(optimizer, spec, iteration, iterations)
            self._step(optimizer, round, iteration)

        yield from sampled(self._model.state_dict, optimizer, step, iterations=iterations, period=period, resume=resume)

    def try_out(self, spec: OptimizerSpec) -> None:
        """Makes one step of a training, and sends its model there and back.

        Args:
            spec: The optimiser.

        Raises:
            TrainingDiverged: The policy's scores became NaN or infinite.
            NonFiniteValue: The weights did.
        """
        *_, made = self.trajectory(self.initial_state, spec, iterations=2, period=1, round=0)
        self.layout.verify(self.layout.pack(made.state))
        self._model.load_state_dict(self.initial_state)

    def gradient(self, state: State, draws: Draws) -> dict[str, Tensor]:
        """The estimate of ∇J(θ) from a batch of episodes, by parameter: the mean over them of R(τ) Σ ∇ log π(a|s)."""
        self._model.load_state_dict(state)
        self._model.zero_grad(set_to_none=True)
        self._objective(self._play(state, draws, record=True)).backward()
        return {
            name: parameter.grad for name, parameter in self._model.named_parameters() if parameter.grad is not None
        }

    def _step(self, optimizer: torch.optim.Optimizer, round: int, iteration: int) -> None:
        games = np.arange(iteration * self._batch_size, (iteration + 1) * self._batch_size) % len(
            self._environments.parameters
        )
        seed = self._secret.seed("episodes", round, iteration)
        draws = Draws.make(self._environments.environment, self._environments.parameters[games], seed)
        optimizer.zero_grad(set_to_none=True)
        episodes = self._play(self._model.state_dict(), draws, record=True)
        objective = self._objective(episodes)
        if not (torch.isfinite(objective) and np.isfinite(episodes.returns).all()):
            raise TrainingDiverged(
                f"the policy's scores diverged in round {round} at iteration {iteration}",
                expected="finite scores",
                received="NaN or an infinite value",
                action="lower the session's learning_rate",
            )
        (-objective).backward()
        optimizer.step()

    def _objective(self, episodes: Episodes) -> Float[Tensor, ""]:
        """What has the estimate of ∇J(θ) as its gradient."""
        weights = torch.from_numpy(self._weights(episodes.returns))[torch.from_numpy(episodes.episode)]
        scores = self._model(torch.from_numpy(episodes.observations))
        log_probabilities = -cross_entropy(scores, torch.from_numpy(episodes.actions), reduction="none")
        return (weights.to(scores.dtype) * log_probabilities).sum() / len(episodes.returns)

    def _weights(self, returns: Float[ndarray, " episodes"]) -> Float[ndarray, " episodes"]:
        match self._baseline:
            case "none":
                weights = returns
            case "mean":
                # The distance from the mean of the others, by way of the mean of all.
                weights = (returns - returns.mean()) * (len(returns) / (len(returns) - 1))
            case "normalized":
                # Where all returns are alike there is nothing to learn from.
                weights = (returns - returns.mean()) / (returns.std() + np.finfo(np.float32).eps)
        return np.asarray(weights)

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """What each episode's discounted return lacks of the best one.

        Args:
            state: The policy.
            samples: Indices of the episodes; None for all.

        Returns:
            Losses at or above 0 in float64, in the order of `samples`; NaN where the policy's scores were not finite.

        Raises:
            InvalidValue: A return exceeds what no episode's should.
            NonFiniteValue: An environment gave a reward that is not finite.
        """
        order = torch.arange(self.samples) if samples is None else samples
        blocks = order.numpy()
        returns = [
            self._play(state, self._evaluation.select(block)).returns
            for block in np.split(blocks, range(self.evaluation_batch_size, len(blocks), self.evaluation_batch_size))
        ]
        losses = self._best_return - np.concatenate(returns)
        if (losses < 0).any():
            raise InvalidValue(
                f"An episode of {self._environments.environment.name} returned more than any should",
                expected=f"at most {self._best_return:g}",
                received=f"{self._best_return - np.nanmin(losses):g}",
                action="raise best_return",
            )
        return torch.from_numpy(losses)

    def tested(self, state: State) -> dict[str, Json]:
        """What a test of a policy says: `return`, the mean return in the first of the tests, and `returns`, by test."""
        returns = self.test_returns(state)
        return {"return": next(iter(returns.values()), None), "returns": {**returns}}

    def test_returns(self, state: State) -> dict[str, float]:
        """Mean cumulative reward, not discounted, of an episode in each of the party's tests.

        Raises:
            NonFiniteValue: An environment gave a reward that is not finite.
        """
        means = {}
        for name, parameters in self._environments.tests.items():
            draws = Draws.make(self._environments.environment, parameters, self._secret.seed(f"test {name}"))
            means[name] = float(play(self._environments.environment, draws, self.policy(state)).returns.mean())
        return means

    def _play(self, state: State, draws: Draws, *, record: bool = False) -> Episodes:
        return play(self._environments.environment, draws, self.policy(state), discount=self._discount, record=record)

    def policy(self, state: State) -> Policy:
        """What a model does in rollouts. It is good until the next policy is asked for, or anything is played here."""
        self._player.load_state_dict(state)

        @torch.inference_mode()
        def scores(observations: Float[ndarray, "playing features"]) -> Float[ndarray, "playing actions"]:
            answer: Tensor = self._player(torch.from_numpy(observations).double())
            return answer.numpy()

        return scores


def _require_fit(model: nn.Module, environments: EnvironmentSet) -> None:
    environment = environments.environment
    with torch.inference_mode():
        try:
            scores = model(torch.zeros(2, environment.features))
            received = f"scores of {list(scores.shape[1:])}"
        except (RuntimeError, ValueError) as error:
            scores, received = None, str(error)
    if scores is None or scores.shape != (2, environment.actions):
        raise TaskMismatch(
            f"the policy does not fit {environment.name}",
            expected=f"observations of {environment.features} numbers, {environment.actions} actions",
            received=received,
            action="give the model the environment's input_shape and classes",
        )

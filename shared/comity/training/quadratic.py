"""A task whose every step can be followed by hand: the regression example of Chen et al. 2023 (section 4.1, figure 1).

The paper gives the data, a = [-1, -1] and b = [1, -1.25], but not the loss; here it is half the squared distance, which
has the optima that its picture shows: a and b alone, their middle together. With exact gradients it is also the smooth
problem of Theorem 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float, Int
from torch import Tensor, nn

from comity.contract import Json
from comity.tensors import Layout, State
from comity.training.optimizers import build_optimizer, set_rate
from comity.training.terms import OptimizerSpec
from comity.training.trajectories import Resume, Snapshot, sampled

LEARNER_POINT = (-1.0, -1.0)
PROVIDER_POINT = (1.0, -1.25)


class Quadratic:
    """A party's local task: to be near its points, f(θ) = Σ ‖θ - x‖² / 2. Gradients are those of the mean over the points.

    Args:
        points: The party's points x, float64.
        initial: Where every session begins.
    """

    def __init__(self, points: Float[Tensor, "points dimension"], initial: Float[Tensor, " dimension"]) -> None:
        self._model = _Point(initial)
        self._points = points.double()
        self.layout = Layout.of(self._model.state_dict())
        self.initial_state: State = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}

    is_guarded = False
    """A sample is an episode: nothing is judged."""

    @property
    def samples(self) -> int:
        """Number of points."""
        return len(self._points)

    @property
    def judged(self) -> int:
        """Number of points over which losses are."""
        return len(self._points)

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
        """Makes full gradient steps and yields θ at iterations 0, I, 2I, … below T; see `Supervised.trajectory`."""
        del round
        self._model.load_state_dict(state)
        optimizer = build_optimizer(spec, self._model.parameters())

        def step(iteration: int) -> None:
            set_rate(optimizer, spec, iteration, iterations)
            optimizer.zero_grad(set_to_none=True)
            self._losses(self._model.theta, self._points).mean().backward()
            optimizer.step()

        yield from sampled(self._model.state_dict, optimizer, step, iterations=iterations, period=period, resume=resume)

    def losses(self, state: State, samples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Half the squared distance to each point, or to those named, float64."""
        return self._losses(state["theta"], self._points if samples is None else self._points[samples])

    def tested(self, state: State) -> dict[str, Json]:
        """There is nothing to test."""
        del state
        return {}

    @staticmethod
    def _losses(theta: Float[Tensor, " dimension"], points: Float[Tensor, "n dimension"]) -> Float[Tensor, " n"]:
        return (theta - points).square().sum(dim=1) / 2


class _Point(nn.Module):
    """θ itself as a model."""

    def __init__(self, initial: Float[Tensor, " dimension"]) -> None:
        super().__init__()
        self.theta = nn.Parameter(initial.double().clone())

"""Weighting methods: AuxiNash, and those that the paper compares it with; see `comity.training.weighting`.

Each is of a number of tasks, the main one first. Weights are of the tasks' gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize, nnls  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from comity.errors import InvalidValue
from comity.protocols.nash_bargaining.algorithm import bargain, power_gradient
from comity.protocols.nash_bargaining.powers import initial_powers, updated_powers
from comity.randomness import derive, generator

Gram = Float[Tensor, "tasks tasks"]
Weights = Float[Tensor, " tasks"]


class Method:
    """What methods have in common: nothing is learned, and nothing kept.

    Args:
        tasks: How many tasks there are.
    """

    needs_gram = True

    def __init__(self, tasks: int) -> None:
        if tasks < 1:
            raise InvalidValue("tasks", expected="1 or more", received=tasks)
        self.tasks = tasks

    def weights(self, losses: Weights, gram: Gram | None) -> Weights:
        """See `WeightingMethod.weights`."""
        return self.of_losses(losses) if gram is None else self.of_gram(gram)

    def of_losses(self, losses: Weights) -> Weights:
        """The weights, of methods that need no Gram matrix."""
        raise NotImplementedError

    def of_gram(self, gram: Gram) -> Weights:
        """The weights, of methods that need one."""
        raise NotImplementedError

    def update(self, gram: Gram, main: Weights, main_length: float) -> None:
        """See `WeightingMethod.update`."""

    def state_dict(self) -> dict[str, Any]:
        """See `WeightingMethod.state_dict`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WeightingMethod.load_state_dict`."""


class Linear(Method):
    """Linear scalarisation: the same weights for ever.

    Args:
        tasks: How many tasks there are.
        weights: Their weights; None for equal ones with a sum of 1.
    """

    needs_gram = False

    def __init__(self, tasks: int, weights: list[float] | None = None) -> None:
        super().__init__(tasks)
        if weights is not None and len(weights) != tasks:
            raise InvalidValue("weights", expected=f"{tasks}, one a task", received=len(weights))
        self._weights = torch.tensor(weights or [1 / tasks] * tasks, dtype=torch.float64)

    def of_losses(self, losses: Weights) -> Weights:
        """See `Method.of_losses`."""
        return self._weights.to(losses.device)


class SingleTask(Linear):
    """The main task alone."""

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks, [1.0] + [0.0] * (tasks - 1))


class AuxiNash(Method):
    """Asymmetric Nash bargaining with powers that are learned (Shamsian et al. 2023).

    Args:
        tasks: How many tasks there are.
        main_power: The main task's power.
        rate: η of an update of the powers; 0 keeps them.
        floor: The least power.
        ridge: See `bargain`.
        most_main: The greatest power of the main task, which is then learned too; None where it stays.
        powers: The powers to begin with, instead; they sum to 1.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        tasks: int,
        main_power: float = 0.25,
        rate: float = 0.5,
        floor: float = 1e-3,
        ridge: float = 1e-2,
        most_main: float | None = None,
        powers: list[float] | None = None,
    ) -> None:
        super().__init__(tasks)
        if powers is not None and (len(powers) != tasks or not math.isclose(sum(powers), 1) or min(powers) < 0):
            raise InvalidValue("powers", expected=f"{tasks} at least 0 that sum to 1", received=powers)
        given = None if powers is None else torch.tensor(powers, dtype=torch.float64)
        if given is None:
            given = initial_powers(tasks - 1, main_power) if tasks > 1 else torch.ones(1, dtype=torch.float64)
        self.powers = given
        self.rate, self.floor, self.ridge, self.most_main = rate, floor, ridge, most_main

    def of_gram(self, gram: Gram) -> Weights:
        """See `Method.of_gram`."""
        return bargain(gram, self.powers, self.ridge).alpha

    def update(self, gram: Gram, main: Weights, main_length: float) -> None:
        """See `WeightingMethod.update`: a step on the powers."""
        if not self.rate or not main_length:
            return
        alpha = bargain(gram, self.powers, self.ridge).alpha
        found = power_gradient(gram, self.powers, alpha, -main / main_length, self.ridge).cpu()
        self.powers = updated_powers(self.powers, found, self.rate, self.floor, self.most_main)

    def state_dict(self) -> dict[str, Any]:
        """See `WeightingMethod.state_dict`."""
        return {"powers": self.powers.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WeightingMethod.load_state_dict`."""
        self.powers = state["powers"].to(torch.float64).clone()


class NashMTL(AuxiNash):
    """Symmetric Nash bargaining (Navon et al. 2022): all have the same power for ever.

    Args:
        tasks: How many tasks there are.
        ridge: See `bargain`.
    """

    def __init__(self, tasks: int, ridge: float = 1e-2) -> None:
        super().__init__(tasks, rate=0.0, ridge=ridge, powers=[1 / tasks] * tasks)


class PCGrad(Method):
    """Each gradient loses its part against each other that it conflicts with (Yu et al. 2020), in an order that is drawn.

    Args:
        tasks: How many tasks there are.
        seed: Decides the orders.
    """

    def __init__(self, tasks: int, seed: int = 0) -> None:
        super().__init__(tasks)
        self._seed, self._step = seed, 0

    def of_gram(self, gram: Gram) -> Weights:
        """See `Method.of_gram`; a projected gradient is a combination of all."""
        self._step += 1
        draws = generator(derive(self._seed, "pcgrad", self._step))
        rows = torch.eye(self.tasks, dtype=torch.float64)
        products = gram.cpu()
        for task in range(self.tasks):
            for other in torch.randperm(self.tasks, generator=draws).tolist():
                product = float(rows[task] @ products[other])
                if other != task and product < 0:
                    rows[task, other] -= product / float(products[other, other])
        return rows.sum(0).to(gram.device)

    def state_dict(self) -> dict[str, Any]:
        """See `WeightingMethod.state_dict`."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WeightingMethod.load_state_dict`."""
        self._step = int(state["step"])


class CAGrad(Method):
    """The update near the mean gradient that helps whoever it helps least the most (Liu et al. 2021).

    Args:
        tasks: How many tasks there are.
        c: How far from the mean gradient, beside its length, 0 to 1.
    """

    def __init__(self, tasks: int, c: float = 0.4) -> None:
        super().__init__(tasks)
        self._c = c

    def of_gram(self, gram: Gram) -> Weights:
        """See `Method.of_gram`."""
        products = gram.cpu().numpy()
        scale = max(float(np.trace(products)) / self.tasks, 1e-60)
        products = products / scale
        mean = np.full(self.tasks, 1 / self.tasks)
        length = math.sqrt(max(float(mean @ products @ mean), 0.0))

        def objective(w: Any) -> float:
            return float(w @ products @ mean + self._c * length * math.sqrt(float(w @ products @ w) + 1e-12))

        sums = {"type": "eq", "fun": lambda w: 1 - w.sum()}
        found = minimize(objective, mean, bounds=[(0, 1)] * self.tasks, constraints=sums, method="SLSQP").x
        worst = math.sqrt(float(found @ products @ found) + 1e-12)
        return torch.from_numpy(mean + self._c * length / worst * found).to(gram.device)


class MGDA(Method):
    """The shortest convex combination (Désidéri 2012; Sener and Koltun 2018), as a nonnegative least-squares problem."""

    def of_gram(self, gram: Gram) -> Weights:
        """See `Method.of_gram`."""
        values, vectors = np.linalg.eigh(gram.cpu().numpy())
        root = np.sqrt(values.clip(min=0))[:, None] * vectors.T
        # The shortest w with Σw = 1 has the direction of the least ‖root·w‖² + scale²(Σw − 1)², whatever the scale.
        scale = max(float(np.sqrt(values.clip(min=0).max())), 1e-60)
        found, _ = nnls(np.vstack([root, np.full(self.tasks, scale)]), np.append(np.zeros(self.tasks), scale))
        return torch.from_numpy(found / found.sum()).to(gram.device)


class IMTL(Method):
    """The update with the same projection on each gradient's direction (IMTL-G; Liu et al. 2021)."""

    def of_gram(self, gram: Gram) -> Weights:
        """See `Method.of_gram`."""
        found = torch.linalg.pinv(gram) @ gram.diagonal().sqrt()
        total = found.sum()
        return found / total if bool(total.abs() > 1e-12) else torch.full_like(found, 1 / self.tasks)


class CosineSimilarity(Method):
    """Auxiliary gradients count by their cosine with the main one, where it is above 0 (GCS; Du et al. 2018)."""

    def of_gram(self, gram: Gram) -> Weights:
        """See `Method.of_gram`."""
        lengths = gram.diagonal().sqrt()
        found = (gram[0] / (lengths[0] * lengths).clamp_min(1e-60)).clamp_min(0)
        found[0] = 1.0
        return found


class Uncertainty(Method):
    """Weights e^−s with learned s, one a task (Kendall et al. 2018): each follows ½(e^−s·loss + s) by its own descent.

    Args:
        tasks: How many tasks there are.
        rate: Step of s.
    """

    needs_gram = False

    def __init__(self, tasks: int, rate: float = 1e-2) -> None:
        super().__init__(tasks)
        self._rate = rate
        self._log_variances = torch.zeros(tasks, dtype=torch.float64)

    def of_losses(self, losses: Weights) -> Weights:
        """See `Method.of_losses`."""
        found = torch.exp(-self._log_variances)
        self._log_variances += self._rate * 0.5 * (found * losses.cpu() - 1)
        return found.to(losses.device)

    def state_dict(self) -> dict[str, Any]:
        """See `WeightingMethod.state_dict`."""
        return {"log_variances": self._log_variances.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WeightingMethod.load_state_dict`."""
        self._log_variances = state["log_variances"].clone()


class DynamicAverage(Method):
    """Tasks whose losses fall slowly count for more (DWA; Liu et al. 2019).

    Args:
        tasks: How many tasks there are.
        temperature: The higher, the more equal.
        steps: Losses are averaged over so many steps, and compared with those before.
    """

    needs_gram = False

    def __init__(self, tasks: int, temperature: float = 2.0, steps: int = 25) -> None:
        super().__init__(tasks)
        self._temperature, self._steps = temperature, steps
        self._means: list[Tensor] = []
        self._sum, self._count = torch.zeros(tasks, dtype=torch.float64), 0

    def of_losses(self, losses: Weights) -> Weights:
        """See `Method.of_losses`."""
        self._sum += losses.cpu()
        self._count += 1
        if self._count == self._steps:
            self._means = [*self._means, self._sum / self._count][-2:]
            self._sum, self._count = torch.zeros(self.tasks, dtype=torch.float64), 0
        ratio = torch.ones(self.tasks, dtype=torch.float64)
        if len(self._means) == 2:
            ratio = self._means[1] / self._means[0].clamp_min(1e-60)
        return (torch.softmax(ratio / self._temperature, 0)).to(losses.device)

    def state_dict(self) -> dict[str, Any]:
        """See `WeightingMethod.state_dict`."""
        return {"means": [each.clone() for each in self._means], "sum": self._sum.clone(), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WeightingMethod.load_state_dict`."""
        self._means = [each.clone() for each in state["means"]]
        self._sum, self._count = state["sum"].clone(), int(state["count"])


class RandomLoss(Method):
    """Weights that are drawn anew in every step (RLW; Lin et al. 2021).

    Args:
        tasks: How many tasks there are.
        seed: Decides the draws.
    """

    needs_gram = False

    def __init__(self, tasks: int, seed: int = 0) -> None:
        super().__init__(tasks)
        self._seed, self._step = seed, 0

    def of_losses(self, losses: Weights) -> Weights:
        """See `Method.of_losses`."""
        self._step += 1
        drawn = torch.randn(self.tasks, dtype=torch.float64, generator=generator(derive(self._seed, "rlw", self._step)))
        return torch.softmax(drawn, 0).to(losses.device)

    def state_dict(self) -> dict[str, Any]:
        """See `WeightingMethod.state_dict`."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `WeightingMethod.load_state_dict`."""
        self._step = int(state["step"])

"""Both bargaining solutions for users of TorchJD: as `Weighting` of a Gramian, and as `Aggregator` of a Jacobian.

TorchJD comes with the extra `torchjd`. Its own `NashMTL` follows the code of Navon et al. 2022: it needs cvxpy and ECOS, keeps
the weights of an earlier matrix where the solver fails, and is wrong where gradients differ in length; these are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comity.errors import InvalidValue, MissingFile
from comity.protocols.nash_bargaining.algorithm import bargain, power_gradient
from comity.protocols.nash_bargaining.powers import initial_powers, updated_powers

try:
    from torchjd.aggregation import GramianWeightedAggregator, Weighting
except ImportError as error:
    raise MissingFile(
        "TorchJD is not installed",
        expected="the extra torchjd",
        received="none",
        action="pip install 'comity[torchjd]'",
    ) from error


class NashMTLWeighting(Weighting[Any]):
    """Weights of the symmetric bargaining solution (Navon et al. 2022), to rounding.

    Without `max_norm`, the update has length 1 and changes with no gradient's length.

    Args:
        ridge: See `comity.protocols.nash_bargaining.bargain`.
        max_norm: Greatest length of the update; 0 for the solution as it is.
    """

    def __init__(self, ridge: float = 0.0, max_norm: float = 0.0) -> None:
        super().__init__()
        if not max_norm >= 0:
            raise InvalidValue("max_norm", expected="at least 0", received=max_norm)
        self.ridge = ridge
        self.max_norm = max_norm

    @torch.no_grad()
    def forward(self, gramian: Tensor, /) -> Tensor:
        """The weights of a Gramian's players, each with the same power."""
        players = len(gramian)
        alpha = bargain(gramian, torch.full((players,), 1 / players, dtype=torch.float64), self.ridge).alpha
        if self.max_norm:
            square = (alpha @ gramian.to(alpha) @ alpha).clamp_min(0)
            alpha = alpha * (self.max_norm / square.sqrt().clamp_min(self.max_norm))
        return alpha.to(gramian)


class NashMTL(GramianWeightedAggregator):
    """Aggregates a Jacobian by the symmetric bargaining solution; see `NashMTLWeighting`.

    Args:
        ridge: See `NashMTLWeighting`.
        max_norm: See `NashMTLWeighting`.
    """

    def __init__(self, ridge: float = 0.0, max_norm: float = 0.0) -> None:
        super().__init__(NashMTLWeighting(ridge, max_norm))

    def __repr__(self) -> str:
        weighting: Any = self.gramian_weighting
        return f"NashMTL(ridge={weighting.ridge}, max_norm={weighting.max_norm})"


class AuxiNashWeighting(Weighting[Any]):
    """Weights of the asymmetric bargaining solution (Shamsian et al. 2023), with powers that are learned.

    It is stateful: the powers are a buffer, so that a `state_dict` has them. The main task is the first row.

    Args:
        n_tasks: Rows of the Jacobian, 2 or more.
        main_power: The main task's power, which stays, unless `most_main` says that it is learned.
        rate: η of an update of the powers.
        floor: The least power.
        ridge: See `comity.protocols.nash_bargaining.bargain`.
        most_main: The greatest power of the main task, which is then learned too; None where it stays.
    """

    powers: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        main_power: float = 0.25,
        rate: float = 0.5,
        floor: float = 1e-3,
        ridge: float = 0.0,
        most_main: float | None = None,
    ) -> None:
        super().__init__()
        if n_tasks < 2:
            raise InvalidValue("n_tasks", expected="2 or more", received=n_tasks)
        if not 0 < main_power < 1 or not 0 < floor * (n_tasks - 1) < 1 - main_power:
            raise InvalidValue(
                "main_power and floor", expected="powers above 0 for all", received=f"{main_power} and {floor}"
            )
        self.main_power = main_power
        self.rate = rate
        self.floor = floor
        self.ridge = ridge
        self.most_main = most_main
        self.register_buffer("powers", initial_powers(n_tasks - 1, main_power))
        self._last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def forward(self, gramian: Tensor, /) -> Tensor:
        """The weights of a Gramian's players."""
        powers = self.powers.to(device=gramian.device, dtype=torch.float64)
        alpha = bargain(gramian, powers, self.ridge).alpha
        self._last = (gramian.detach(), alpha)
        return alpha.to(gramian)

    @torch.no_grad()
    def update_powers(self, products: Tensor, length: float = 1.0) -> Tensor:
        """Moves power to the tasks that help the main one; returns the powers.

        Args:
            products: Inner products of each row of the last Jacobian with the main task's gradient on another batch.
            length: That gradient's length, which is divided out.

        Raises:
            InvalidValue: Nothing was aggregated since the last `reset`, or the products are of other rows.
        """
        if self._last is None or len(products) != len(self.powers):
            raise InvalidValue(
                "powers cannot be updated",
                expected=f"{len(self.powers)} products with rows that were aggregated",
                received="nothing aggregated" if self._last is None else len(products),
                action="aggregate first",
            )
        gramian, alpha = self._last
        vector = -products.to(alpha) / max(length, torch.finfo(torch.float32).tiny)
        found = power_gradient(gramian, self.powers, alpha, vector, self.ridge)
        powers = updated_powers(self.powers.to(found), found, self.rate, self.floor, self.most_main)
        self.powers.copy_(powers)
        return self.powers

    def reset(self) -> None:
        """Forgets what was learned of the powers."""
        self.powers.copy_(initial_powers(len(self.powers) - 1, self.main_power))
        self._last = None


class AuxiNash(GramianWeightedAggregator):
    """Aggregates a Jacobian by the asymmetric bargaining solution; its first row is the main task's.

    An aggregator sees only Jacobians, so whoever trains says from time to time what the main task's gradient is on another
    batch: `update_powers`. The last Jacobian is kept for that.

    Args:
        n_tasks: See `AuxiNashWeighting`, as for the others.
        options: See `AuxiNashWeighting`.
    """

    gramian_weighting: AuxiNashWeighting

    def __init__(self, n_tasks: int, **options: Any) -> None:
        super().__init__(AuxiNashWeighting(n_tasks, **options))
        self._jacobian: Tensor | None = None

    @property
    def powers(self) -> Tensor:
        """The bargaining powers, the main task's first."""
        return self.gramian_weighting.powers

    def forward(self, matrix: Any, /) -> Tensor:
        """The bargained update."""
        self._jacobian = matrix.detach()
        update: Tensor = super().forward(matrix)
        return update

    @torch.no_grad()
    def update_powers(self, main_gradient: Tensor) -> Tensor:
        """Moves power to the tasks that help the main one; returns the powers.

        Args:
            main_gradient: The main task's gradient on another batch, in the order of the Jacobian's columns.

        Raises:
            InvalidValue: Nothing was aggregated, or the gradient is of other parameters.
        """
        if self._jacobian is None or main_gradient.shape != self._jacobian.shape[1:]:
            wanted = "a Jacobian to have been aggregated" if self._jacobian is None else [*self._jacobian.shape[1:]]
            raise InvalidValue(
                "powers cannot be updated", expected=wanted, received=[*main_gradient.shape], action="aggregate first"
            )
        products = self._jacobian.double() @ main_gradient.double()
        return self.gramian_weighting.update_powers(products, float(main_gradient.double().norm()))

    def reset(self) -> None:
        """Forgets what was learned of the powers."""
        self.gramian_weighting.reset()
        self._jacobian = None

    def __repr__(self) -> str:
        return f"AuxiNash(n_tasks={len(self.powers)})"

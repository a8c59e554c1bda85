"""Has a process of its own try a contract, and tells what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from comity import errors
from comity.contract import Contract
from comity.errors import ComityError, InvalidValue, NodeDraining, TooManyCalls
from comity.models.catalogue import BUILT_IN, TORCHVISION
from comity.node.config import PartyConfig

_ENDS_S = 60.0
"""How much longer than it may the process is waited for, which keeps its own time, in seconds, beside reading the data."""

_QUICK_S = 30.0
"""How long a trial may take that keeps those of other parties waiting: starting the process is most of it, in seconds."""

_Lane = Literal["own", "quick", "slow"]

_KEPT = 64
"""How many verdicts that passed are remembered."""


class Trials:
    """Tries contracts in a process of its own: what a model does there to memory or to the interpreter is not done here.

    Only where the code of a model is not this library's, or torchvision's: a node's own, or a package's.

    Args:
        party: The party.
        config: Its configuration.
        folder: Its `state_dir`, where weights of earlier sessions are; None for a party that keeps nothing.
    """

    def __init__(self, party: str, config: PartyConfig, folder: Path | None) -> None:
        self._party = party
        self._config = config
        self._folder = folder
        self._lanes: Mapping[_Lane, threading.Lock] = {each: threading.Lock() for each in get_args(_Lane)}
        # Parties whose last contract took long, or failed: they wait for each other.
        self._slow: set[str] = set()
        self._passed: deque[str] = deque(maxlen=_KEPT)
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def concern(self, models: Iterable[str]) -> bool:
        """Whether models, by their names, are of others' code; else this library has them all, and there is nothing to try."""
        return any(each in self._config.models or not _is_known(each) for each in models)

    def require(self, contract: Contract, models: Collection[str], data: str) -> None:
        """Checks that a contract's models can be built and trained on the party's data.

        One contract at a time is tried of this party's own, one of parties whose last was quick, and one of the others: who
        sends slow models keeps those waiting who do so too. What passed is remembered: another session of the same models, task
        and terms does not try them again.

        Args:
            contract: The contract, signed or not.
            models: Names of the models that the party builds for it.
            data: Digest of the party's data.

        Raises:
            NodeDraining: The node stops before it is known.
            TooManyCalls: Those of other parties take so long that its own had better ask again.
            ComityError: They cannot.
        """
        tried = what_is_tried(self._party, self._config, contract, models, data)
        initiator = contract.initiator or self._party
        with self._turn(initiator):
            if tried in self._passed:
                return
            began = time.monotonic()
            self._slow.add(initiator)
            self._try(contract, models)
            self._passed.append(tried)
            if time.monotonic() - began < _QUICK_S:
                self._slow.discard(initiator)

    @contextmanager
    def _turn(self, initiator: str) -> Iterator[None]:
        is_own = initiator == self._party
        lane: _Lane = "own" if is_own else "slow" if initiator in self._slow else "quick"
        # Who waits here takes one of the threads that serve all.
        within_s = -1 if is_own else self._config.limits.call_s
        if not self._lanes[lane].acquire(timeout=within_s):
            raise TooManyCalls(
                "models of other parties are being tried",
                expected=f"a turn within {within_s:g} s",
                received="none yet",
                action="ask again",
            )
        try:
            yield
        finally:
            self._lanes[lane].release()

    def end(self) -> None:
        """Ends what is being tried, and tries nothing more."""
        self._is_over = True
        for process in self._processes.copy():
            process.kill()

    def _try(self, contract: Contract, models: Collection[str]) -> None:
        config = self._config.model_dump(mode="json", include=set(PartyConfig.model_fields) - {"secret"})
        asked = {
            "party": self._party,
            "config": config,
            "folder": None if self._folder is None else str(self._folder),
            "contract": contract.model_dump(mode="json"),
        }
        # It finds the same code as this process, whose folders may not be those of its own start.
        surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
        command = [sys.executable, "-P", "-m", "comity.node.trials"]
        with subprocess.Popen(  # noqa: S603 - this package's own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=surroundings
        ) as process:
            self._processes.add(process)
            try:
                if self._is_over:
                    process.kill()
                answer, _ = process.communicate(
                    json.dumps(asked).encode(), self._config.limits.trial_s + self._config.limits.unit_s + _ENDS_S
                )
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise self._failed(models, "no answer") from error
                raise
            finally:
                self._processes.discard(process)
        if self._is_over:
            raise NodeDraining("the node is stopping", action="try again when it is back")
        try:
            told: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise self._failed(models, self._end(process.returncode)) from None
        if told:
            raise _error(told)

    def _end(self, code: int) -> str:
        """How the process ended that gave no answer."""
        if code == -signal.SIGALRM:
            return f"more than {self._config.limits.trial_s:g} s, by limits.trial_s"
        ended = signal.Signals(-code).name if code < 0 else f"code {code}"
        return f"the process that tried it ended with {ended}"

    def _failed(self, models: Collection[str], received: str) -> InvalidValue:
        return InvalidValue(
            f"{self._party} cannot train {', '.join(models)} on its data",
            expected="a model that makes one step and one evaluation within the memory and the time that there is for it",
            received=received,
            action="correct the model, or choose another",
        )


def what_is_tried(party: str, config: PartyConfig, contract: Contract, models: Iterable[str], data: str) -> str:
    """What the verdict on a contract depends on.

    Args:
        party: Who tries it.
        config: Its configuration.
        contract: The contract, signed or not.
        models: Names of the models that the party builds for it.
        data: Digest of its data.
    """
    specs = {
        name: each.model_dump(mode="json", exclude={"signature", "base"}) for name, each in contract.models.items()
    }
    own = {name: str(config.models.get(name)) for name in models}
    parts = contract.model_dump(mode="json", include={"protocol", "version", "task", "terms"})
    helps = party in contract.acceptors
    settings = config.model_dump(mode="json", include={"protocols"})
    return json.dumps([parts, specs, own, settings, helps, data], sort_keys=True)


def _is_known(model: str) -> bool:
    """Whether the code of a model is this library's, or torchvision's."""
    return model.replace("_", "-") in BUILT_IN or model.startswith(TORCHVISION)


def _error(told: dict[str, Any]) -> ComityError:
    """The error that the process told of."""
    kind = getattr(errors, str(told.pop("kind")), ComityError)
    return kind(told.pop("what"), **told)

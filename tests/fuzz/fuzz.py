"""`make fuzz`: every decoder in turn under atheris, which looks for inputs that reach new code.

Each runs in a process of its own, which ends at the first input that it does not survive: that is written to `.fuzz/`,
and belongs into `tests/fuzz/corpus/` with a fix. What reaches new code is kept in `.fuzz/` from one run to the next.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

from tests.fuzz.corpus import folder_of, kept
from tests.packages.installation import PACKAGES, install, make_known

if TYPE_CHECKING:
    from tests.fuzz.decoder import Decoder

FOUND = Path(__file__).parent.parent.parent / ".fuzz"
MEMORY_MIB = 3072
"""Most memory of a process; torch and the rest that is imported take a third of it."""
LONGEST_S = 10
"""Most seconds for one input, of a process that has a processor to itself; of more than there are, each waits for its turn."""


@dataclass(frozen=True)
class Outcome:
    """What a run of one decoder came to.

    Attributes:
        executions: Inputs tried.
        coverage: Edges of Comity's code that were reached.
        inputs: Inputs that are kept since each reaches something that no other does.
        failed: What the process said at its end; empty where no input broke it.
    """

    executions: int
    coverage: int
    inputs: int
    failed: str


def outcome_of(said: str, code: int) -> Outcome:
    """Reads what libFuzzer printed."""
    lines = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: \d+ corp: (\d+)", said, re.MULTILINE)
    executions, coverage, inputs = map(int, lines[-1]) if lines else (0, 0, 0)
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Warning)\b.*|^==\d+== ?ERROR.*", said, re.MULTILINE)
    return Outcome(executions, coverage, inputs, "" if code == 0 else (errors or [f"it ended with {code}"])[0][:200])


def run(found: Iterable[Decoder], seconds: int, jobs: int, folder: Path) -> Iterator[tuple[Decoder, Outcome]]:
    """Fuzzes each decoder for so long, in a process that is forked: to import everything takes longer than some runs.

    Args:
        found: The decoders.
        seconds: How long each is tried.
        jobs: How many are tried at a time.
        folder: Where processes write what they say.
    """
    waiting, longest_s = iter(found), LONGEST_S * max(1, jobs // (os.cpu_count() or 1))
    running: dict[int, Decoder] = {}
    while True:
        for decoder in islice(waiting, jobs - len(running)):
            running[_begun(decoder, seconds, longest_s, folder / folder_of(decoder.name).name)] = decoder
        if not running:
            return
        child, status = os.wait()
        decoder = running.pop(child)
        said = (folder / folder_of(decoder.name).name).read_text(errors="replace")
        yield decoder, outcome_of(said, os.waitstatus_to_exitcode(status))


def _begun(decoder: Decoder, seconds: int, longest_s: int, log: Path) -> int:
    """Begins to fuzz a decoder; returns the process's number."""
    child = os.fork()
    if child == 0:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # What it writes goes beside its log, and with it.
        tempfile.tempdir = str(log.parent)
        code = 1
        try:
            _fuzz(decoder.name, seconds, longest_s)
            code = 0
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever it is, it is this process's alone
            traceback.print_exc()
        finally:
            # Not the way out of what the parent has open: its temporary folder would go with this process.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return child


def _fuzz(name: str, seconds: int, longest_s: int) -> None:
    from comity.errors import ComityError  # noqa: PLC0415 - see main
    from tests.fuzz.decoder import scratch  # noqa: PLC0415
    from tests.fuzz.decoders import decoders  # noqa: PLC0415

    # Made anew: those of the other processes write files of the same names.
    scratch.cache_clear()
    decoders.cache_clear()
    decoder = decoders()[name]
    corpus = FOUND / folder_of(decoder.name).name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(decoder.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    for each in kept(decoder.name):
        shutil.copy(each, corpus / each.name)

    def try_one(data: bytes) -> None:
        with suppress(ComityError):
            decoder.decode(data)

    limits = (f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={longest_s}", "-max_len=65536")
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus}-", str(corpus)], try_one)
    atheris.Fuzz()


def main() -> int:
    """Fuzzes the decoders that are named, or all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each decoder")
    parser.add_argument("--decoder", default="", help="those whose names contain this")
    parser.add_argument("--jobs", type=int, default=1, help="decoders that are tried at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        install(Path(folder))
        make_known(Path(folder))
        # What is imported here counts what of it is reached.
        with (
            redirect_stderr(StringIO()),
            atheris.instrument_imports(include=["comity", *(each.name for each in PACKAGES)]),
        ):
            from tests.fuzz.decoders import decoders  # noqa: PLC0415

            found = [each for name, each in decoders().items() if options.decoder in name]
        print(f"{'decoder':45} {'seconds':>7} {'executions':>10} {'coverage':>8} {'inputs':>6}", flush=True)  # noqa: T201
        outcomes = []
        for decoder, last in run(found, options.seconds, options.jobs, Path(folder)):
            outcomes.append(last)
            line = f"{decoder.name:45} {options.seconds:7} {last.executions:10} {last.coverage:8} {last.inputs:6}"
            print(f"{line}  {last.failed}".rstrip(), flush=True)  # noqa: T201
    broken, total = sum(bool(each.failed) for each in outcomes), sum(each.executions for each in outcomes)
    print(f"{len(found)} decoders, {total} executions, {broken} broken")  # noqa: T201
    return 1 if broken or not found else 0


if __name__ == "__main__":
    sys.exit(main())

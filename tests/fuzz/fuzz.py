"""`make fuzz`: every decoder in turn under atheris, which looks for inputs that reach new code.

Each runs in a process of its own, which ends at the first input that it does not survive: that is written to `.fuzz/`,
and belongs into `tests/fuzz/corpus/` with a fix. What reaches new code is kept there from one run to the next.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.corpus import folder_of

ROOT = Path(__file__).parent.parent.parent
FOUND = ROOT / ".fuzz"
MEMORY_MIB = 2048
"""Most memory of a process; torch alone takes a quarter of it."""
LONGEST_S = 10
"""Most seconds for one input."""


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
    tail = [line for line in said.splitlines() if re.match(r"\s*(\w+\.)*\w*(Error|Exception)\b|==\d+== ?ERROR", line)]
    return Outcome(executions, coverage, inputs, "" if code == 0 else (tail or said.splitlines()[-1:] or ["it ended"])[0])


def run(name: str, seconds: int, folder: Path) -> Outcome:
    """Fuzzes one decoder for so long."""
    corpus = FOUND / folder_of(name).name
    corpus.mkdir(parents=True, exist_ok=True)
    kept = [str(folder_of(name))] if folder_of(name).is_dir() else []
    flags = (f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={LONGEST_S}", "-max_len=65536")
    crashes = f"-artifact_prefix={corpus}-"
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(folder), *flags, crashes, str(corpus), *kept]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return outcome_of(done.stdout.decode("utf-8", "replace"), done.returncode)


def main() -> int:
    """Fuzzes the decoders that are named, or all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each decoder")
    parser.add_argument("--decoder", default="", help="those whose names contain this")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="fuzz-") as folder:
        listed = [sys.executable, "-m", "tests.fuzz.one", "--list", folder]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        named = [name for name in names if options.decoder in name]
        print(f"{'decoder':45} {'seconds':>7} {'executions':>10} {'coverage':>8} {'inputs':>6}")  # noqa: T201
        outcomes = []
        for name in named:
            found = run(name, options.seconds, Path(folder))
            outcomes.append(found)
            line = f"{name:45} {options.seconds:7} {found.executions:10} {found.coverage:8} {found.inputs:6}"
            print(f"{line}  {found.failed}".rstrip(), flush=True)  # noqa: T201
    broken = sum(bool(each.failed) for each in outcomes)
    total = sum(each.executions for each in outcomes)
    print(f"{len(named)} decoders, {total} executions, {broken} broken")  # noqa: T201
    return 1 if broken or not named else 0


if __name__ == "__main__":
    sys.exit(main())

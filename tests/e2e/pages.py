"""The pages of the documentation, and who follows them: what they have one type is typed, what they show has to come.

- In a ```console block a line that begins with `$` is typed; with `NAME$` on that side, with `NAME#` by its administrator,
  to the network. The lines below it must come, in that order, among what the command prints; `…` stands for anything, and a
  session's identifier for whatever the session is called. What ends in `&`, and a daemon, goes on while the rest is typed.
- A ```text block after it tells what a command that goes on says once it is interrupted.
- A block below a line with a file's name in backquotes is that file.
- ```python blocks are run in their order, in one namespace.
- Of ```sh blocks, which need other machines, and of `comity …` in the text, only verbs and options are checked.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.e2e.conftest import clean_environment, until

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300
_BLOCK = re.compile(
    r"^(?:`(?P<file>[\w./-]+)`\n\n)?```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_TYPED = re.compile(r"^(?P<side>\w*)(?P<prompt>[$#]) (?P<line>.+)$")
_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(comity .+)$")
_SESSION = re.compile(r"\bs-[0-9a-f]{12}\b")
_IN_TEXT = re.compile(r"`(comity [^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        language: Of what.
        body: Its lines, continued ones joined.
        file: The file that it is; empty for none.
    """

    language: str
    body: str
    file: str

    @property
    def lines(self) -> list[str]:
        """Its lines that are not blank."""
        return [line for line in self.body.splitlines() if line.strip()]


@dataclass
class Step:
    """Something to do: a command to type, or a file to write.

    Attributes:
        side: Who; empty where there is one side alone.
        line: What is typed; empty for a file.
        shown: What the page shows below it.
        interrupted: What it shows to come after Ctrl-C; nothing where none is pressed.
        is_network: Whether it is done to the network.
        file: The file to write.
        body: What is in it.
    """

    side: str
    line: str = ""
    shown: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    is_network: bool = False
    file: str = ""
    body: str = ""

    @property
    def words(self) -> list[str]:
        """What is typed, word for word."""
        return shlex.split(self.line.removesuffix(" &"))

    @property
    def goes_on(self) -> bool:
        """Whether it goes on while the rest is typed."""
        return self.line.endswith(" &") or "node" in self.words[1:3]


def pages() -> list[Path]:
    """Every page that is written for users."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md")]
    return sorted([*found, *ROOT.glob("shared/comity/protocols/*/README.md")])


def blocks(page: Path, *languages: str) -> list[Block]:
    """A page's blocks; of these languages, where any are named."""
    found = [
        Block(each["language"], each["body"].replace("\\\n", " "), each["file"] or "")
        for each in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    return [each for each in found if not languages or each.language in languages]


def run_python(page: Path) -> int:
    """Runs a page's Python blocks, in their order and one namespace; returns how many there are."""
    namespace: dict[str, Any] = {"__name__": "page"}
    found = blocks(page, "python")
    for block in found:
        exec(compile(block.body, page.name, "exec"), namespace)
    return len(found)


def steps(page: Path) -> list[Step]:
    """What a page has its readers do, in its order."""
    found: list[Step] = []
    for block in blocks(page):
        if block.language == "text" and found:
            found[-1].interrupted = block.lines
        found += steps_of(block)
    return found


def steps_of(block: Block) -> list[Step]:
    """What one block has its readers do."""
    if block.file:
        return [Step("", file=block.file, body=block.body)]
    found: list[Step] = []
    for line in block.lines if block.language == "console" else ():
        typed = _TYPED.match(line)
        if typed is not None:
            found.append(Step(typed["side"], typed["line"], is_network=typed["prompt"] == "#"))
        else:
            found[-1].shown.append(line)
    return found


def commands(page: Path) -> list[str]:
    """Every `comity` command of a page that a reader may type: in its blocks, and in its text."""
    lines = [step.line for each in blocks(page, "console") for step in steps_of(each)]
    lines += [line for each in blocks(page, "sh") for line in each.lines]
    typed = [found[1] for line in lines if (found := _COMMAND.match(line))]
    return list(dict.fromkeys([*typed, *_IN_TEXT.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))]))


def missing(shown: list[str], printed: str) -> list[str]:
    """What of the shown lines does not come, in their order, among what was printed."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for at, line in enumerate(shown):
        pattern = re.escape(" ".join(line.split())).replace("\\ …", ".*").replace("…", ".*")
        pattern = re.sub(r"s\\-[0-9a-f]{12}", r"s-[0-9a-f]{12}", pattern)
        if not any(re.fullmatch(pattern, each) for each in lines):
            return shown[at:]
    return []


class Follower:
    """Does what a page says, each side in a folder of its own, and looks whether what the page shows comes.

    Args:
        folders: Where each side works.
        stack: What is undone at the end.
        shell: The arguments with which a side's shell is given a line.
        environment: Of all commands, beside the usual.

    Attributes:
        running: What goes on, by side.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        stack: ExitStack,
        shell: Callable[[str, str], list[str]] = lambda side, line: ["/bin/sh", "-c", line],
        **environment: str,
    ) -> None:
        self.folders = folders
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._stack = stack
        # The session that was last told of: a page has one identifier for whatever a session is called.
        self._session = ""
        self._shell = shell
        # Beside other tests, more threads than cores would wait for each other most of the time.
        self._environment = clean_environment(OMP_NUM_THREADS="1", **environment)

    def take(self, step: Step) -> None:
        """Does one step."""
        if step.file:
            path = self.folders[step.side] / step.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.body)
            return
        if step.words[1:3] == ["trust", "add"] and len(self.folders) > 1:
            # They send each other their cards.
            other = step.words[3]
            shutil.copy(self.folders[other] / step.words[4], self.folders[step.side])
        if self._session:
            step = replace(step, line=_SESSION.sub(self._session, step.line))
        if step.goes_on:
            self.running[step.side] = self._begin(step)
        elif step.interrupted:
            process = self._begin(step)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            self._wait_for(step, step.interrupted)
        else:
            self._finish(step)

    def _finish(self, step: Step) -> None:
        done = subprocess.run(
            self._shell(step.side, step.line),
            cwd=self.folders[step.side],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        bad = any(line.startswith(("✗", "comity: ")) for line in step.shown)
        assert bool(done.returncode) == bad, f"{step.side}$ {step.line}\n{done.stdout}"
        assert "Traceback" not in done.stdout
        assert not missing(step.shown, done.stdout), f"{step.side}$ {step.line}\n{done.stdout}"
        self._session = next(iter(_SESSION.findall(done.stdout)), self._session)

    def _begin(self, step: Step) -> subprocess.Popen[str]:
        """Starts what goes on, and waits for what it shows."""
        # This very process becomes the command, so that signals reach it.
        line = self._shell(step.side, f"exec env {step.line.removesuffix(' &')}")
        with self._output(step).open("w") as output:
            process = subprocess.Popen(
                line,
                cwd=self.folders[step.side],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )
        self._stack.callback(_end, process)
        self._wait_for(step, step.shown, process)
        return process

    def _wait_for(self, step: Step, shown: list[str], process: subprocess.Popen[str] | None = None) -> None:
        output = self._output(step)
        what = f"{step.side}$ {step.line}: {shown}"
        ended = lambda: process is not None and process.poll() is not None  # noqa: E731
        until(lambda: not missing(shown, output.read_text()) or ended(), what, deadline_s=120)
        assert not missing(shown, output.read_text()), f"{what}\n{output.read_text()}"

    def _output(self, step: Step) -> Path:
        folder = self.folders[step.side]
        return folder.parent / f"{folder.name}-{re.sub(r'[^a-z0-9]+', '-', step.line.lower())[-60:]}.out"


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """The links of a page to files of the project: as written, where they lead, and to which heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if not target.startswith(("http", "mailto:")):
            path, _, heading = target.partition("#")
            yield target, (page.parent / path).resolve() if path else page, heading


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    found = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}

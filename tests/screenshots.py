"""Pictures of the report of every demo, for the pages: `make screenshots`.

Runs each demo's session, between daemons that also say what help was worth as nodes of one's own do, writes the report of
the party that sees all of it, and has Chromium look at it at two widths, in light and in dark.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from comity.cli.progress import SessionProgress
from comity.cli.run import drive
from comity.experiments import demo_script
from comity.experiments.studies import all_studies
from comity.node.config_sections import CompareSettings
from comity.node.control_client import ControlClient
from comity.node.sessions.script import Script, parse_script
from comity.protocol.registry import protocol
from comity.simulation.processes import running
from tests.browser import WIDTHS, opened

IMAGES = Path(__file__).parents[1] / "docs" / "images" / "reports"
COMITY = Path(sys.executable).with_name("comity")


def taken(demo: str, folder: Path) -> None:
    """The pictures of a demo's report; its session is run unless the folder is there."""
    script = parse_script(demo_script(demo, 0))
    definition = protocol(script.session.protocol)
    center = next(name for name, each in script.party.items() if each.role == definition.center)
    if not folder.exists():
        session(script, folder)
    page = folder / "report.html"
    subprocess.run([COMITY, "report", "--state", folder / center / "state", "--out", page], check=True)
    for name, width, dark in (("wide", WIDTHS["wide"], False), ("narrow", WIDTHS["narrow"], True)):
        with opened(page.as_uri(), width=width, dark=dark) as seen:
            assert seen.fits(), f"{demo}: something is beyond {width} pixels"
            assert not seen.wrong, seen.wrong
            seen.page.screenshot(path=IMAGES / f"{demo}-{name}.png", full_page=name == "wide")


def session(script: Script, folder: Path) -> None:
    """Runs a script's session; its parties compare it with what each would have had alone."""
    alone = CompareSettings(share=1000)
    parties = {name: each.model_copy(update={"compare": alone}) for name, each in script.party.items()}
    script = script.model_copy(update={"party": parties})
    with ExitStack() as stack:
        nodes = stack.enter_context(running(script, folder))
        clients = {name: stack.enter_context(ControlClient(node.control_url)) for name, node in nodes.items()}
        drive(script, clients, SessionProgress(quiet=True))


def main() -> None:
    """Takes those of every protocol's first demo; folders of demos that were run may be named: DEMO=FOLDER."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    run = dict(each.split("=", 1) for each in sys.argv[1:])
    with TemporaryDirectory(prefix="comity-") as scratch:
        for studies in all_studies():
            demo = next(iter(studies.demos), "")
            if demo:
                taken(demo, Path(run.get(demo, str(Path(scratch) / demo))))


if __name__ == "__main__":
    main()

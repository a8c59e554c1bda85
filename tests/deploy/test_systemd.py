"""The units of deploy/systemd, by systemd's own check."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose.stack import DEPLOY

UNIT = DEPLOY / "systemd" / "comity@.service"
COMMAND = "/opt/comity/bin/comity"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_it(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert text.count(COMMAND) == 1
    # Verified is also that the command is there: here it is elsewhere.
    (tmp_path / "comity@.service").write_text(text.replace(COMMAND, str(Path(sys.executable).with_name("comity"))))
    (tmp_path / "comity@hospital.service").symlink_to("comity@.service")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "comity@hospital.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Of the machine's other units there may be words as well.
    said = [line for line in (done.stdout + done.stderr).splitlines() if "comity" in line]
    assert said == []
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_it_may_do_little(tmp_path: Path) -> None:
    shutil.copy(UNIT, tmp_path / "comity@.service")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(tmp_path / "comity@.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_what_it_says_of_exit_codes_is_what_the_command_does() -> None:
    text = UNIT.read_text()
    assert "RestartPreventExitStatus=2" in text
    assert "kill -HUP" in text

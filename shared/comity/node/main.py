"""The command line of a daemon, the same for every role."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from comity import crash
from comity.errors import ComityError, InvalidValue, of_system
from comity.node.config import NodeConfig, load_config
from comity.node.daemon import run_daemon
from comity.node.log_file import RotatingFile
from comity.node.logs import catch_all, configure_logs
from comity.node.spooled_stream import SpooledStream


def run(role: str, config: type[NodeConfig]) -> NoReturn:
    """Runs a daemon as this process, and ends the process."""
    # All that is said goes there: lines of the log, warnings of libraries, what an interpreter has to say.
    sys.stderr.flush()
    sys.stderr = lines = SpooledStream(sys.stderr.fileno())
    catch_all()
    try:
        code = main(role, config)
    finally:
        lines.end()
    sys.stdout.flush()
    # At once: a thread may be in the middle of a training step, and aborts when the interpreter ends beneath it.
    os._exit(code)


def main(role: str, config: type[NodeConfig], arguments: list[str] | None = None) -> int:
    """Runs a daemon until it is told to stop.

    Args:
        role: What it does.
        config: Its configuration class.
        arguments: Arguments; those of the process where None.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog=f"{role}_node", description=f"Runs a {role} node until SIGTERM.")
    parser.add_argument("--config", type=Path, required=True, help="the node's TOML file")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    options = parser.parse_args(arguments)
    configure_logs(options.log_level)
    loaded: NodeConfig | None = None
    try:
        loaded = load_config(config, options.config)
        _require_role(loaded, role, options.config)
        logs = loaded.logs
        rotating = RotatingFile(logs.file, logs.max_bytes, logs.keep) if logs.file is not None else None
        configure_logs(options.log_level, loaded.state_dir, rotating)
        run_daemon(role, loaded, options.config)
    except ComityError as error:
        print(f"{role}_node: {error}", file=sys.stderr)  # noqa: T201 - for the one who started it
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last handler
        known = of_system(error) if isinstance(error, OSError) else None
        if known is not None:
            print(f"{role}_node: {known}", file=sys.stderr)  # noqa: T201
            return known.exit_code
        file = crash.write(error, loaded.state_dir if loaded is not None else None)
        line = f"this should not happen: {crash.described(error)}; please report it: {file} says more"
        print(f"{role}_node: {line}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _require_role(config: NodeConfig, role: str, path: Path) -> None:
    if config.role not in {"", role}:
        raise InvalidValue(
            f"{path} is the configuration of another role",
            expected=config.role,
            received=role,
            action=f"start it as a {config.role}, or name another --config",
        )

"""The `comity` command."""

from __future__ import annotations

import json
import sys
from importlib import import_module

from comity.cli.verbs.app import app
from comity.errors import ComityError

# Each adds its verbs; in the order in which help shows what they are for.
for _name in ("try_it", "run", "look", "set_up", "account"):
    import_module(f"comity.cli.verbs.{_name}")


def main() -> None:
    """Runs the command; an error is one line on standard error, and its class decides the exit code."""
    try:
        app(standalone_mode=True)
    except ComityError as error:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": error.reason(), "message": str(error)}) + "\n")
        sys.stderr.write(f"comity: {error}\n")
        sys.exit(error.exit_code)

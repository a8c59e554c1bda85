"""One decoder under atheris, in a process of its own; `tests.fuzz.fuzz` starts it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from tests.packages.installation import install, make_known

LIST = "--list"


def main() -> None:
    """Takes the decoder's name, or `--list`; a folder for files; and what libFuzzer is told."""
    name, folder, *flags = sys.argv[1:]
    installed = Path(folder) / "installed"
    if not installed.is_dir():
        installed.mkdir()
        install(installed)
    make_known(installed)
    if name == LIST:
        from tests.fuzz.decoders import decoders  # noqa: PLC0415

        print("\n".join(decoders()))  # noqa: T201
        return
    import atheris  # noqa: PLC0415

    # What is imported from here on counts what of it is reached.
    with atheris.instrument_imports(include=["comity", "tests.packages"]):
        from comity.errors import ComityError  # noqa: PLC0415
        from tests.fuzz.decoders import decoders  # noqa: PLC0415

        decoder = decoders()[name]
    corpus = next(Path(each) for each in flags if not each.startswith("-"))
    for number, seed in enumerate(decoder.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def try_one(data: bytes) -> None:
        with suppress(ComityError):
            decoder.decode(data)

    atheris.Setup([sys.argv[0], *flags], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

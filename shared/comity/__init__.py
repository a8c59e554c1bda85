"""Comity: organisations help each other's models while the data stays where it is."""


def version() -> str:
    """The installed version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - reads files; most callers never ask

    return installed("comity")

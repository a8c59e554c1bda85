"""A session as a page: what was agreed, how its rounds went, what crossed, and what came of it."""

from comity.report.page import SessionReport, render

__all__ = ["SessionReport", "render"]

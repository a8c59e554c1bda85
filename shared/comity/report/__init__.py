"""A session as a page: what was agreed, how its rounds went, what crossed, and the result."""

from comity.report.page import SessionReport, render

__all__ = ["SessionReport", "render"]

"""A session as a page: what was agreed, how its rounds went, what crossed, and the result."""

from comity.report.page import SessionReport, render, render_together

__all__ = ["SessionReport", "render", "render_together"]

"""Days and times as people write them in tables. Light: a new node's file is written without torch."""

from __future__ import annotations

import re

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = (
    r"\d{4}([-/.])\d{1,2}\1\d{1,2}",
    r"\d{1,2}([-/.])\d{1,2}\2(?:\d{4}|\d{2})",
    rf"\d{{1,2}}\.?[- ]{_MONTH}[-, ]\s?\d{{2,4}}",
    rf"{_MONTH} \d{{1,2}},? \d{{4}}",
)
_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s?[ap]m)?(?:\s?(?:z|utc|[+-]\d{2}:?\d{2}))?"
_DATE = re.compile(rf"(?:{'|'.join(_DAY)})(?:[t, ]\s?{_TIME})?|{_TIME}", re.IGNORECASE)


def is_date(cell: str) -> bool:
    """Whether a cell says a day, a time of day, or both; a number is none, however it is meant."""
    return _DATE.fullmatch(cell) is not None

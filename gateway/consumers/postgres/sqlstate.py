"""What a PostgreSQL error means for a sink, by its SQLSTATE (PostgreSQL documentation, appendix A).

A faulty row becomes a dead letter; a faulty set-up needs an operator; all else passes with time.
"""

import re
from typing import Final

import psycopg

from gateway.consumers.errors import ConsumerError, TargetAway, TargetRefused, TargetSlow

_ROW_CLASSES: Final = ("22", "23")
_ROW_STATES: Final = {"P0001", "P0004", "21000", "44000", "54000", "54001", "0A000"}
"""A trigger raised it, a view was violated, or a value is too complex or of an unsupported kind."""
_REFUSED_CLASSES: Final = ("28", "3D", "3F", "42", "0L", "0P")
_REFUSED_STATES: Final = {"55000"}
_READ_ONLY: Final = "25006"
_UNUSABLE_URL: Final = ("does not exist", "invalid connection option", "for connection option")
"""Words of libpq about a URL that no waiting makes usable."""
READ_ONLY_ADVICE: Final = (
    "the database is read-only: is it a standby? Name the primary, or name all servers and add"
    " target_session_attrs=read-write to the URL"
)
_SLOW_STATES: Final = {"57014", "25P04"}
"""statement_timeout and transaction_timeout."""
_copy_line = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)


def is_row_error(error: psycopg.Error) -> bool:
    """Whether one row of the batch is at fault."""
    state = error.sqlstate or ""
    return state[:2] in _ROW_CLASSES or state in _ROW_STATES


def copy_line(error: psycopg.Error) -> int | None:
    """The line of the COPY that the error names, from 1. None if it names none."""
    found = _copy_line.search(error.diag.context or "")
    return int(found[1]) if found else None


def word_of(error: psycopg.Error) -> str:
    """The error's class name without psycopg's module, in snake case: `unique_violation`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def describe(error: psycopg.Error) -> str:
    """The server's message and detail in one line."""
    parts = [error.diag.message_primary or str(error), error.diag.message_detail]
    return "; ".join(part.strip().replace("\n", " ") for part in parts if part)


def as_consumer_error(error: psycopg.Error) -> ConsumerError:
    """The same error in this room's words."""
    state = error.sqlstate or ""
    detail = describe(error)
    if state == _READ_ONLY:
        return TargetRefused(f"{READ_ONLY_ADVICE} ({detail})")
    if state[:2] in _REFUSED_CLASSES or state in _REFUSED_STATES:
        return TargetRefused(detail)
    if state in _SLOW_STATES:
        return TargetSlow(detail)
    text = str(error)
    if not state and ("authentication failed" in text or "no pg_hba.conf entry" in text):
        return TargetRefused(detail)  # libpq gives no SQLSTATE for a failed start of a connection
    if not state and any(each in text for each in _UNUSABLE_URL):
        return TargetRefused(detail)
    return TargetAway(detail)

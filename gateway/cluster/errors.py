"""What can go wrong between nodes.

ClusterError
 +-- RedisUnavailable   Redis does not do what it was asked; the node works alone until it does
      +-- RedisRefused  Redis answers and refuses: a setting must change, on the node or in Redis
"""

import ssl
from collections.abc import Sequence
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

REASONS: Final = (
    "unreachable",
    "no_answer",
    "loading",
    "read_only",
    "out_of_memory",
    "error",
    "wrong_password",
    "no_permission",
    "certificate",
)
"""Why Redis cannot be used; the labels of a metric."""

_MISTAKES: Final = {"wrong_password", "no_permission", "certificate"}
"""Reasons that waiting does not cure."""
_DETAIL_CHARS_MAX: Final = 200

_BY_CLASS: Final = (
    (AuthenticationError, "wrong_password"),
    (NoPermissionError, "no_permission"),
    (ReadOnlyError, "read_only"),
    (OutOfMemoryError, "out_of_memory"),
    (BusyLoadingError, "loading"),
    ((RedisTimeoutError, TimeoutError), "no_answer"),
)
# An error inside a script, or while a connection is made, arrives as text.
_BY_TEXT: Final = (
    ("WRONGPASS", "wrong_password"),
    ("NOAUTH", "wrong_password"),
    ("invalid password", "wrong_password"),
    ("NOPERM", "no_permission"),
    ("no permissions", "no_permission"),
    ("can't run this command", "no_permission"),
    ("can't access", "no_permission"),
    ("can't publish", "no_permission"),
    ("READONLY", "read_only"),
    ("read only replica", "read_only"),
    ("OOM", "out_of_memory"),
)


class ClusterError(Exception):
    """Base of this room's errors."""


class RedisUnavailable(ClusterError):
    """Redis cannot be used now. The message says why, without the URL of Redis.

    `reason` is one of `REASONS`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"Redis: {reason.replace('_', ' ')}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail


class RedisRefused(RedisUnavailable):
    """A mistake, not an outage: the password, a right or a certificate is wrong."""


def unavailable(exc: RedisError | OSError) -> RedisUnavailable:
    """The error of this room for an error of the library."""
    reason = _reason_of(exc)
    cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
    detail = str(cause).splitlines()[0] if str(cause) else type(exc).__name__
    made = RedisRefused if reason in _MISTAKES else RedisUnavailable
    return made(reason, detail[:_DETAIL_CHARS_MAX])


def refusal(errors: Sequence[str]) -> RedisUnavailable:
    """The error for what the trial of rights found: `command|error` for each failure."""
    found = [error.partition("|") for error in errors]
    reasons = [_reason_of(ResponseError(text)) for _command, _bar, text in found]
    if all(reason == "no_permission" for reason in reasons):
        commands = ", ".join(command for command, _bar, _text in found)
        return RedisRefused("no_permission", f"{commands}: {found[0][2]}"[:_DETAIL_CHARS_MAX])
    first = next(index for index, reason in enumerate(reasons) if reason != "no_permission")
    return unavailable(ResponseError(found[first][2]))


def _reason_of(exc: RedisError | OSError) -> str:
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in (exc, exc.__cause__)):
        return "certificate"
    text = str(exc)
    for sign, reason in _BY_TEXT:
        if sign in text:
            return reason
    for kinds, reason in _BY_CLASS:
        if isinstance(exc, kinds):
            return reason
    return "error" if isinstance(exc, ResponseError) else "unreachable"

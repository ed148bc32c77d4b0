"""What this room takes from redis-py: the client, and its errors as errors of this room.

The first `RedisLink` imports this module. redis-py takes 0.2 s of CPU to import, with the
OpenTelemetry SDK where that is installed, and a gateway without Redis must not pay for it. So no
other module imports redis-py.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
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
from redis.maint_notifications import MaintNotificationsConfig

from gateway.cluster.errors import RedisRefused, RedisUnavailable

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


def client(url: str, *, timeout_s: float) -> Redis:
    """A client of the Redis at `url`, which raises errors of redis-py."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
        # No retries: a repeated `lease` would take slots twice. `RedisLink.run` connects again.
        retry=Retry(NoBackoff(), 0),
        # Both would send the command CLIENT, which needs a right of its own.
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


@contextlib.asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise errors of this room instead of the library's."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise unavailable(exc) from exc


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

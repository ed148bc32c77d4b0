"""Reads stored presence facts, and orders them by fence: the last one stored may be a late one."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import nats.errors

from gateway.consumers.stored_now import stored_now
from gateway.session.presence import Fact, Truth, document_of, read_fact
from gateway.stream.errors import StreamError
from gateway.stream.names import PRESENCE
from gateway.stream.reader import Link

_SHOWN_WITHIN_S: Final = 2.0
LATE_S: Final = 900.0
"""A fact that is stored this long after a newer one of its device is taken for the truth."""


async def facts_of(link: Link, tenant: str, device: str) -> list[tuple[Fact, int]]:
    """The facts that are kept of one device, each with its stream sequence, in stream order.

    Raises:
        StreamMissing: there is no stream of presence.
        nats.errors.Error: JetStream does not answer.
    """
    subject = f"presence.{tenant}.{device}"
    found = stored_now(link, PRESENCE, [subject], _with_sequence)
    return [item async for item in found if item is not None]


async def presence_of(link: Link, tenant: str, device: str) -> Fact | None:
    """The truth about one device; None if nothing is known of it.

    Raises:
        StreamMissing, nats.errors.Error: as `facts_of`.
    """
    truth = Truth()
    for fact, _seq in await facts_of(link, tenant, device):
        truth.take(fact)
    return truth.of((tenant, device))


async def shown_presence(link: Link, tenant: str, device: str) -> dict[str, Any] | None:
    """The truth about one device, for the look-up; None if nothing is known, or can be read now."""
    try:
        async with asyncio.timeout(_SHOWN_WITHIN_S):
            fact = await presence_of(link, tenant, device)
    except (StreamError, nats.errors.Error, TimeoutError):
        return None
    return document_of(fact) if fact is not None else None


async def truth_now(link: Link, *, tenant: str = "*", late_s: float = LATE_S) -> Truth:
    """The truth about all devices, as far as it is stored now.

    The last fact of each device is read, and all facts of the last `late_s` seconds: among these
    the newest may not be the last.

    Args:
        link: the connection.
        tenant: whose devices; all without it.
        late_s: how far back all facts are read, in seconds.

    Raises:
        StreamMissing: there is no stream of presence.
        nats.errors.Error: JetStream does not answer.
    """
    truth, subjects = Truth(), [f"presence.{tenant}.*"]
    async for fact in stored_now(link, PRESENCE, subjects, _fact, last_of_each=True):
        if fact is not None:
            truth.take(fact)
    since = datetime.now(UTC) - timedelta(seconds=late_s)
    async for fact in stored_now(link, PRESENCE, subjects, _fact, since=since):
        if fact is not None:
            truth.take(fact)
    return truth


def _fact(subject: str, _headers: bytes, data: bytes, _seq: int, _stored_ns: int) -> Fact | None:
    return read_fact(subject, data)


def _with_sequence(
    subject: str, _headers: bytes, data: bytes, seq: int, _stored_ns: int
) -> tuple[Fact, int] | None:
    fact = read_fact(subject, data)
    return (fact, seq) if fact is not None else None

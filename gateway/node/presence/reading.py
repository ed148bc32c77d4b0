"""Reads stored presence facts, and orders them by fence: the last one stored may be a late one.

To read the last fact of each device is cheap, to read all of them is not. So all facts are read
only of those devices whose last fact may hide one with a higher fence (`may_be_late`), and those of
the last minutes of everybody. One case is found only within `RECENT_S`: a node that is cut from
Redis does not hear that a device has moved, and its session ends much later than the newer one
began, in a way that is no takeover. That needs two live connections of one device.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import nats.errors

from gateway.consumers.stored_now import stored_now
from gateway.session.presence import NODE_LOST, TAKEN_OVER, Fact, Truth, document_of, read_fact
from gateway.stream.errors import StreamError
from gateway.stream.names import PRESENCE
from gateway.stream.reading.reader import Link

_SHOWN_WITHIN_S: Final = 2.0
RECENT_S: Final = 900.0
"""All facts that were stored since then are read."""
_PROMPT_S: Final = 10.0
"""Stored within this time of what it tells, a fact is on time: the writer lingers for a second."""
_SUBJECTS_MAX: Final = 100
"""Devices whose facts are read at once."""
_ONE_BY_ONE_MAX: Final = 2_000
"""If more devices than this are in doubt, all facts are read in one go instead."""


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


def may_be_late(fact: Fact, stored_at: float) -> bool:
    """Whether a fact with a higher fence may stand before this one, the last of its device.

    A session that was taken over has a newer one by definition. Of the devices of a node that was
    lost, some have moved before the others said so. Any other fact comes before those of a newer
    session, unless its writer could not store it in time.

    Args:
        fact: the last one that is stored of its device.
        stored_at: when that was, Unix time.
    """
    return fact.cause in (TAKEN_OVER, NODE_LOST) or stored_at - fact.time > _PROMPT_S


async def truth_now(link: Link, *, tenant: str = "*") -> Truth:
    """The truth about all devices, as far as it is stored now.

    Args:
        link: the connection.
        tenant: whose devices; all without it.

    Raises:
        StreamMissing: there is no stream of presence.
        nats.errors.Error: JetStream does not answer.
    """
    truth, everybody = Truth(), [f"presence.{tenant}.*"]
    doubtful: list[str] = []
    async for last in stored_now(link, PRESENCE, everybody, _with_time, last_of_each=True):
        if last is not None:
            fact, stored_at = last
            truth.take(fact)
            if may_be_late(fact, stored_at):
                doubtful.append(fact.subject)
    since = datetime.now(UTC) - timedelta(seconds=RECENT_S)
    async for recent in stored_now(link, PRESENCE, everybody, _fact, since=since):
        if recent is not None:
            truth.take(recent)
    async for older in _all_of(link, doubtful, everybody):
        if older is not None:
            truth.take(older)
    return truth


async def _all_of(
    link: Link, subjects: Sequence[str], everybody: Sequence[str]
) -> AsyncIterator[Fact | None]:
    """All facts that are kept on these subjects."""
    if len(subjects) > _ONE_BY_ONE_MAX:
        parts = [everybody]
    else:
        starts = range(0, len(subjects), _SUBJECTS_MAX)
        parts = [subjects[start : start + _SUBJECTS_MAX] for start in starts]
    for part in parts:
        async for fact in stored_now(link, PRESENCE, part, _fact):
            yield fact


def _fact(subject: str, _headers: bytes, data: bytes, _seq: int, _stored_ns: int) -> Fact | None:
    return read_fact(subject, data)


def _with_time(
    subject: str, _headers: bytes, data: bytes, _seq: int, stored_ns: int
) -> tuple[Fact, float] | None:
    fact = read_fact(subject, data)
    return (fact, stored_ns / 1e9) if fact is not None else None


def _with_sequence(
    subject: str, _headers: bytes, data: bytes, seq: int, _stored_ns: int
) -> tuple[Fact, int] | None:
    fact = read_fact(subject, data)
    return (fact, seq) if fact is not None else None

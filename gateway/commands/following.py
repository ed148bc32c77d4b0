"""`tidegate tail` at work: it connects, says what it cannot reach, and prints or copies events."""

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from gateway.consumers.delivery.copying import Copy
from gateway.events.destinations import NatsDestination
from gateway.events.event import Event
from gateway.events.replaying import Pace
from gateway.nats_access import in_time, nats_address
from gateway.settings import Settings
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import connect_once
from gateway.stream.link.link import NatsLink
from gateway.stream.reading.replay import ReplayFilter, replay_as
from gateway.stream.reading.replay import replay as stored_lines
from gateway.stream.server.roles import Role

_NAME: Final = "tidegate-tail"


async def follow(
    settings: Settings, wanted: ReplayFilter, *, go_on: bool, say: Callable[[str], None]
) -> None:
    """Print what is stored.

    Args:
        settings: where NATS is.
        wanted: what to read.
        go_on: go on with messages that come later; else stop at the end.
        say: takes each line for the person who waits.

    Raises:
        StreamError: NATS cannot be reached at first, or has no such stream.
    """
    rng = random.Random()
    async with connected(settings, Role.OPERATORS, say, rng) as link:
        async for line in stored_lines(link, wanted, follow=go_on, rng=rng):
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()


async def copy(
    settings: Settings,
    wanted: ReplayFilter,
    destination: NatsDestination,
    *,
    speed: float | None,
    say: Callable[[str], None],
) -> Copy:
    """Replay what is stored now into a subject.

    Args:
        settings: where NATS is.
        wanted: what to read.
        destination: the subject.
        speed: 1 is the pace at which events were stored, None as fast as the target takes them.
        say: takes each line for the person who waits.

    Returns:
        What was done.

    Raises:
        StreamError: NATS cannot be reached at first, or has no such stream.
        ConsumerError: the target is refused, or does not answer.
    """
    rng = random.Random()
    # As a consumer: it may read, and publish to the subjects of rules, which no operator may.
    async with connected(settings, Role.CONSUMERS, say, rng) as link:
        work = Copy(link, destination, Pace(speed, time.monotonic), rng)
        events = replay_as(Event, link, wanted, follow=False, rng=rng)
        async with contextlib.aclosing(events):
            await work.run(events)
        return work


@contextlib.asynccontextmanager
async def connected(
    settings: Settings, role: Role, say: Callable[[str], None], rng: random.Random
) -> AsyncIterator[NatsLink]:
    """A connection that comes back by itself; what ends it for good is raised."""
    address = in_time(nats_address(settings, role))
    # The first try is a separate one: a mistake ends the command, a later failure does not.
    await (await connect_once(address, name=_NAME)).discard()
    failures: list[BaseException] = []
    task = asyncio.current_task()
    assert task is not None

    def give_up(failure: BaseException) -> None:
        failures.append(failure)
        task.cancel()

    link = NatsLink(
        address,
        name=_NAME,
        on_up=_nothing,
        on_ready=lambda _client: None,
        on_down=lambda: say("the connection to NATS is lost; trying again"),
        on_failure=give_up,
        on_denied=lambda what: say(f"NATS does not allow it: {what}"),
        rng=rng,
    )
    link.start()
    try:
        yield link
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        await link.stop()


def leave_pipe() -> None:
    """Standard output has no reader any more: send Python's own flush at the end to /dev/null."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _nothing(_client: LinkClient) -> None:
    """Nothing is subscribed before the reader does it."""

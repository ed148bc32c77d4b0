"""`tidegate tail` at work: it connects, says what it cannot reach, and prints what is stored."""

import asyncio
import os
import random
import sys
from collections.abc import Callable
from typing import Final

from gateway.nats_access import in_time, nats_address
from gateway.settings import Settings
from gateway.stream.nats_client import LinkClient, connect_once
from gateway.stream.nats_link import NatsLink
from gateway.stream.replay import ReplayFilter
from gateway.stream.replay import replay as stored_lines
from gateway.stream.rights import Role

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
    address = in_time(nats_address(settings, Role.OPERATORS))
    # The first try is a separate one: a mistake ends the command, a later failure does not.
    await (await connect_once(address, name=_NAME)).discard()
    failures: list[BaseException] = []
    task, rng = asyncio.current_task(), random.Random()
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
        async for line in stored_lines(link, wanted, follow=go_on, rng=rng):
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
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

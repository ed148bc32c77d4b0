"""Look-ups of states whose rounds have no answer. What they find is in `tests/test_state.py`."""

import asyncio
import random

import nats.errors

from gateway.stream.observer import StreamObserver
from gateway.stream.states.known import KnownStates
from gateway.stream.states.lookups import StateLookups
from support.waiting import eventually


class Link:
    """A connection on which every request fails."""

    def __init__(self):
        self.client = self

    async def wait_up(self):
        return self

    def new_inbox(self):
        return "_INBOX.1"

    def __getattr__(self, name):
        async def refuse(*_args, **_more):
            raise nats.errors.NoRespondersError

        return refuse


class Counted(StreamObserver):
    failed = 0

    def state_round_failed(self):
        self.failed += 1


async def test_a_round_without_an_answer_is_counted_and_repeated():
    begun, observer = asyncio.Event(), Counted()
    begun.set()
    lookups = StateLookups(
        Link(),
        KnownStates(1_000),
        begun=begun,
        devices_max=10,
        observer=observer,
        rng=random.Random(1),
    )
    lookups.ask(("default", "veh-1"), None, lambda *_answer: None)
    running = asyncio.create_task(lookups.run())
    await eventually(lambda: observer.failed >= 2)
    running.cancel()
    assert len(lookups) == 1

"""A drain: every device gets a slot elsewhere in its turn, and what it sent is settled."""

import asyncio
import random

import pytest

from gateway.admission.calendar import CalendarSettings
from gateway.node.cluster.membership import LoneNode
from gateway.node.drain import NodeDrain, SlotsElsewhere, send_away
from gateway.settings import load_settings
from support.waiting import within


class Session:
    key = ("t", "veh-1")

    def __init__(self, on_leave=lambda: None):
        self.told = None
        self._on_leave = on_leave

    def leave(self, reason, retry_ms, ticket, linger_s):
        self.told = (reason, retry_ms, ticket, linger_s)
        self._on_leave()


class Fleet(list):
    first_retry_ms = 2_000

    def holds(self, member):
        return member in self


class Office:
    def __init__(self):
        self.issued = []

    def issue(self, slot_at, *, holder, now):
        self.issued.append((slot_at, now))
        return "ticket"


class Gate:
    draining = False

    def __init__(self):
        self.empty = asyncio.Event()

    def drain(self):
        self.draining = True


class Publisher:
    pending_messages = 0

    def __init__(self, *, hangs=False):
        self.drained = 0
        self._hangs = hangs

    async def drain(self):
        self.drained += 1
        if self._hangs:
            await asyncio.Event().wait()


def settings(**drain):
    overrides = {f"drain.{name}": value for name, value in drain.items()}
    return load_settings(None, environment={}, overrides=overrides)


def slots(membership, office, now=10.0):
    return SlotsElsewhere(
        settings(),
        membership,
        office,
        fleet=Fleet(),
        clock=lambda: now,
        rng=random.Random(1),
    )


def lone(**calendar):
    made = CalendarSettings(burst=1, **calendar)
    return LoneNode(made, rate_per_s=1.0, now=10.0)


async def test_each_device_gets_the_next_slot_and_its_ticket():
    office, membership = Office(), lone()
    reserve = slots(membership, office).reserve
    waits = [(await reserve(Session()))[0] for _ in range(4)]
    assert waits == sorted(waits)
    assert waits[0] >= 1
    assert len(office.issued) == 4
    assert all(slot_at >= now for slot_at, now in office.issued)


async def test_past_the_horizon_a_device_gets_a_time_and_no_ticket():
    office, membership = Office(), lone(horizon_s=0.5)
    reserve = slots(membership, office).reserve
    answers = [await reserve(Session()) for _ in range(10)]
    retry_ms, ticket = answers[-1]
    assert ticket == ""
    assert 1 <= retry_ms <= Fleet.first_retry_ms


async def test_with_another_node_devices_are_waited_for_until_they_have_gone():
    empty, left = asyncio.Event(), []

    def leave():
        left.append(1)
        if len(left) == 3:
            empty.set()

    sessions = [Session(leave) for _ in range(3)]

    async def slot(_session):
        return 60_000, "t"

    await within(
        send_away(
            sessions, slot,
            is_here=lambda _: True, rate_per_s=1e6, linger_s=60.0, empty=empty,
            rng=random.Random(1),
        )
    )  # fmt: skip
    assert [session.told for session in sessions] == [("drain", 60_000, "t", 60.0)] * 3


async def test_a_session_that_has_ended_takes_no_turn_and_no_slot():
    """After a cut most of them have: a stop would pace through a fleet that is not there."""
    gone, here = [Session() for _ in range(1_000)], [Session(), Session()]
    given = []

    async def slot(session):
        given.append(session)
        return 1, "t"

    await within(
        send_away(
            gone + here, slot,
            is_here=here.__contains__, rate_per_s=10.0, linger_s=-1, empty=asyncio.Event(),
            rng=random.Random(1),
        )
    )  # fmt: skip
    assert set(given) == set(here)
    assert not any(session.told for session in gone)


async def test_a_session_that_ends_while_it_waits_for_its_turn_gets_no_slot():
    """However late the turns come: the session is looked at after the wait."""
    sessions, given, looked_at = [Session(), Session()], [], []
    loop = asyncio.get_running_loop()

    async def slot(session):
        given.append(session)
        return 1, "t"

    def is_here(session):
        looked_at.append(session)
        return len(looked_at) == 1 or loop.time() < second_turn_at

    second_turn_at = loop.time() + 0.05
    await within(
        send_away(
            sessions, slot,
            is_here=is_here, rate_per_s=1 / 0.06, linger_s=-1, empty=asyncio.Event(),
            rng=random.Random(1),
        )
    )  # fmt: skip
    assert given == looked_at[:1]


def drain(gate, publisher, *sessions, **changes):
    membership = lone()
    return NodeDrain(
        settings(**changes),
        slots(membership, Office()),
        fleet=Fleet(sessions),
        membership=membership,
        gate=gate,
        publisher=publisher,
        rng=random.Random(1),
    )


async def test_alone_a_node_closes_at_once_and_flushes():
    gate, publisher, session = Gate(), Publisher(), Session()
    gate.empty.set()
    draining = drain(gate, publisher, session)
    draining.refuse_knocks()
    await within(draining.run())
    assert gate.draining
    assert publisher.drained == 1
    assert session.told[3] < 0  # no linger: there is nowhere to go


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_flush_that_takes_too_long_does_not_keep_the_node(hangs):
    gate, publisher = Gate(), Publisher(hangs=hangs)
    gate.empty.set()
    await within(drain(gate, publisher, flush_timeout_ms=1).run())
    assert publisher.drained == 1

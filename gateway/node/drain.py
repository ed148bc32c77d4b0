"""Draining: every session gets a slot elsewhere, at a set rate, before it is closed."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from gateway.admission.office import NodeTicketOffice
from gateway.admission.ticket import device_hash
from gateway.edge.fleet import Fleet, Member
from gateway.edge.gate import DeviceGate
from gateway.node.cluster.membership import Membership
from gateway.session.machine import DRAIN
from gateway.settings import Settings
from gateway.stream.lanes.publisher import Publisher

_log = structlog.get_logger(__name__)

_LATE_S: Final = 0.5
"""Extra wait, because the timing wheel fires up to 0.3 s late."""
_CLOSING_S: Final = 1.0
"""How long the closing handshakes of the last devices may take."""
_RESERVE_TRIES: Final = 100

SlotElsewhere = Callable[[Member], Awaitable[tuple[int, str]]]


async def send_away(
    sessions: Sequence[Member],
    slot_elsewhere: SlotElsewhere,
    *,
    is_here: Callable[[Member], bool],
    rate_per_s: float,
    linger_s: float,
    empty: asyncio.Event,
    rng: random.Random,
) -> None:
    """Send the devices of `sessions` to other nodes, in random order.

    Args:
        sessions: of this node.
        slot_elsewhere: gives each its slot (milliseconds from now) and ticket.
        is_here: whether a session is still there. One that has ended takes no turn and no slot.
        rate_per_s: sessions sent away a second.
        linger_s: how long each lives on after its slot, so that the device can make its new
            connection before the old one breaks; negative if there is no other node to go to.
        empty: set once no connection is left.
        rng: source of the order.
    """
    order = list(sessions)
    rng.shuffle(order)
    _log.info("draining", devices=len(order), seconds=round(len(order) / rate_per_s, 1))
    loop = asyncio.get_running_loop()
    began = loop.time()
    last_slot_at = began
    sent = 0
    for session in order:
        delay_s = began + sent / rate_per_s - loop.time()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        if not is_here(session):
            continue  # the next one takes the turn, which has come
        sent += 1
        retry_ms, ticket = await slot_elsewhere(session)
        session.leave(DRAIN, retry_ms, ticket, linger_s)
        last_slot_at = max(last_slot_at, loop.time() + retry_ms / 1000)
    if linger_s < 0:
        return
    # Each device closes its connection, or its session closes it when the time is up.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(last_slot_at + linger_s + _LATE_S - loop.time()):
            await empty.wait()


class SlotsElsewhere:
    """Reserves slots for devices that must leave this node."""

    def __init__(
        self,
        settings: Settings,
        membership: Membership,
        office: NodeTicketOffice,
        *,
        fleet: Fleet,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """
        Args:
            settings: of the gateway.
            membership: whose calendar has the slots.
            office: issues the tickets.
            fleet: the sessions of this node.
            clock: local time, seconds.
            rng: source of the time of a device that gets no slot.
        """
        self._lease_s = settings.cluster.lease_ms / 1000
        self._cost = settings.admission.resume_cost
        self._membership = membership
        self._office = office
        self._fleet = fleet
        self._clock = clock
        self._rng = rng

    async def reserve(self, session: Member) -> tuple[int, str]:
        """A slot for a device: milliseconds from now, and its ticket; without one, just a time."""
        calendar = self._membership.calendar
        for _ in range(_RESERVE_TRIES):
            if calendar.ready(self._clock()):
                break
            await asyncio.sleep(self._lease_s)
        now = self._clock()
        slot = calendar.reserve(now, self._cost, priority=False)
        if slot is None:
            return self._rng.randrange(1, self._fleet.first_retry_ms + 1), ""
        slot = max(slot, now)
        tenant, device = session.key
        ticket = self._office.issue(slot, holder=device_hash(tenant, device), now=now)
        return max(1, round((slot - now) * 1000)), ticket


class NodeDrain:
    """Empties the node: devices go elsewhere in turn, and what they sent is settled."""

    def __init__(
        self,
        settings: Settings,
        slots: SlotsElsewhere,
        *,
        fleet: Fleet,
        membership: Membership,
        gate: DeviceGate,
        publisher: Publisher,
        rng: random.Random,
        leaving: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        Args:
            settings: section `drain` is read.
            slots: reserves the slots of devices that leave.
            fleet: the sessions of this node.
            membership: knows whether there are other nodes.
            gate: admits nobody while the node drains.
            publisher: settles what devices have sent.
            rng: source of the order in which devices leave.
            leaving: other nodes that leave at the same time, and can take no device.
        """
        self._leaving = leaving
        self._settings = settings.drain
        self._slots = slots
        self._fleet = fleet
        self._membership = membership
        self._gate = gate
        self._publisher = publisher
        self._rng = rng

    @property
    def unsettled(self) -> int:
        """Messages that were received and are not yet settled."""
        return self._publisher.pending_messages

    def refuse_knocks(self) -> None:
        """Refuse every device from now on; connected ones stay."""
        self._gate.drain()

    async def run(self) -> None:
        """Each device in its turn: a slot elsewhere, settle what it sent, close."""
        settings, gate = self._settings, self._gate
        await send_away(
            list(self._fleet),
            self._slots.reserve,
            is_here=self._fleet.holds,
            rate_per_s=settings.rate_per_s,
            # If there is no other node, close at once.
            linger_s=settings.linger_ms / 1000 if self._membership.peers > self._leaving() else -1,
            empty=gate.empty,
            rng=self._rng,
        )
        try:
            async with asyncio.timeout(settings.flush_timeout_ms / 1000):
                await self._publisher.drain()
        except TimeoutError:
            _log.error("flush_timeout", unsettled=self.unsettled)
        # The stop drops a connection whose closing handshake takes longer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                await gate.empty.wait()

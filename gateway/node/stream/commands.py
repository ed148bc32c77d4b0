"""Commands on one node: requests that a device answers, and the queue of those that wait for it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from gateway.admission.controller import RateController
from gateway.edge.fleet import CommandSeat, Member
from gateway.node import limits
from gateway.node.basis import Basis
from gateway.node.sessions import SessionCommands
from gateway.process import Work
from gateway.stream.commands.chains import Chains
from gateway.stream.commands.requests import CommandInlet
from gateway.stream.link.client import LinkClient
from gateway.stream.queue.dispatch import Dispatch, Pace
from gateway.stream.queue.facts import DeviceKey
from gateway.stream.queue.index import QueueIndex
from gateway.stream.queue.lease import ExpiryLease
from gateway.stream.queue.line import QueueLimits
from gateway.stream.queue.queue import Expiry, QueueReader
from gateway.stream.queue.store import CommandStore
from gateway.stream.queue.turns import Turns
from tidegate.wire import frames


class _Link:
    """The node's connection to NATS, for a reader of a stream. Satisfies `reader.Link`."""

    def __init__(self) -> None:
        self._client: LinkClient | None = None
        self._up = asyncio.Event()

    @property
    def client(self) -> LinkClient | None:
        client = self._client
        return client if client is not None and client.is_connected else None

    def on_up(self, client: LinkClient) -> None:
        self._client = client
        self._up.set()

    async def wait_up(self) -> LinkClient:
        """Wait for a live client."""
        while (client := self.client) is None:
            self._up.clear()
            await self._up.wait()
        return client


class _Seats:
    """The sessions of this node, as the queue sees them."""

    def __init__(self, basis: Basis) -> None:
        self._fleet = basis.fleet

    def seat(self, key: DeviceKey) -> CommandSeat | None:
        member = self._fleet.find(*key)
        return None if member is None else member.seat


class NodeCommands:
    """Follows the sessions of this node, their answers, and the queue."""

    def __init__(self, basis: Basis, room: Callable[[], bool], chains: Chains) -> None:
        """
        Args:
            basis: as everywhere.
            room: whether the devices' messages leave room for commands now.
            chains: hears which device a rule has commanded.
        """
        settings, rng = basis.settings.commands, basis.rng
        bounds = QueueLimits(settings.in_flight_max, settings.result_wait_s)
        self._rate = RateController(limits.delivery_settings(basis.settings))
        observer = basis.observers.queue
        self._inlet = CommandInlet(SessionCommands(basis.fleet).deliver, chains)
        self._store = CommandStore(basis.node)
        self._link = _Link()
        index = QueueIndex(settings.entries_max)
        turns = Turns(
            self._store, index, bounds, node=basis.node, wall=basis.wall, observer=observer
        )
        self._dispatch = Dispatch(
            turns,
            index,
            _Seats(basis),
            Pace(lambda: self._rate.rate_per_s, room),
            observer=observer,
            rng=rng,
            on_failure=basis.ending.fail,
        )
        self._reader = QueueReader(self._link, index, turns, self._dispatch, rng)
        self._lease = ExpiryLease(self._store, basis.node, clock=basis.local, rng=rng)
        self._expiry = Expiry(
            index,
            turns,
            self._dispatch,
            result_wait_s=bounds.result_wait_s,
            leads=lambda: self._lease.held,
            wall=basis.wall,
            rng=rng,
        )
        self._register_gauges(basis, index)

    def _register_gauges(self, basis: Basis, index: QueueIndex) -> None:
        gauge = basis.metrics.gauge
        gauge(
            "tidegate_commands_queued",
            "Entries of the queue of commands that this node knows.",
            index.__len__,
        )
        gauge(
            "tidegate_commands_oldest_seconds",
            "Age of the oldest of these entries; 0 if there is none.",
            lambda: 0.0 if index.oldest_at is None else basis.wall() - index.oldest_at,
        )
        gauge(
            "tidegate_commands_queued_devices",
            "Devices that have such entries.",
            lambda: index.devices,
        )
        gauge(
            "tidegate_command_deliveries_per_second",
            "Queued commands that may be delivered a second, as the health of the node allows.",
            lambda: self._rate.rate_per_s,
        )
        gauge(
            "tidegate_command_subscriptions",
            "Devices that this node hears requests for.",
            lambda: self._inlet.subscribed,
        )

    def observe(self, signals: Mapping[str, float], now: float) -> None:
        """Deliver as fast as the health of the node allows.

        Args:
            signals: the readings of this second, as for R.
            now: local time, seconds.
        """
        self._rate.observe(signals, now)

    async def on_up(self, client: LinkClient) -> None:
        """There is a fresh connection to NATS."""
        await self._store.on_up(client)
        await self._inlet.on_up(client)
        self._link.on_up(client)
        self._dispatch.on_up()

    # Sessions

    def established(self, member: Member) -> None:
        key, fence = member.key, member.fence
        self._inlet.established(key, fence)
        self._dispatch.established(key, fence)

    def ended(self, key: DeviceKey, fence: int, cause: str) -> None:
        self._inlet.ended(key, fence, cause)
        self._dispatch.ended(key, fence)

    def answered(self, tenant: str, device: str, answer: frames.Result | frames.Received) -> bool:
        """A device answered a command. False if nothing waits for that answer."""
        if isinstance(answer, frames.Result) and self._inlet.on_result(tenant, device, answer):
            return True
        return self._dispatch.answered((tenant, device), answer)

    # Work

    def runs(self) -> Iterable[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """What runs as long as the node serves, once its streams are there."""
        yield "commands-reader", self._reader.read
        yield "commands-index", self._reader.take
        yield "commands-dispatch", self._dispatch.run
        yield "commands-expiry", self._expiry.run
        yield "commands-lease", self._lease.run


class QueueWork:
    """Runs the queue once the streams are there."""

    def __init__(self, commands: NodeCommands, ready: Callable[[], Awaitable[None]]) -> None:
        self._commands = commands
        self._ready = ready

    def work(self) -> Iterable[Work]:
        for name, run in self._commands.runs():
            yield name, self._after_ready(run)

    async def _after_ready(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self._ready()
        await run()

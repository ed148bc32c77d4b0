"""What is compared in turns: a server with its devices, and a publisher without devices."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol

import nats

from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.publisher import BarePublisher, Kind
from loadtest.devices.senders import Flow
from loadtest.errors import TargetError
from loadtest.servers.baselines import PeerServer
from loadtest.servers.gateway import GatewayServer

COLUMNS: Final = ("", "acked msg/s", "CPU us/msg", "ack p50 ms", "ack p99 ms")
TURNS: Final = 3
"""Of each side: disk and processor are faster in one half minute than in the next."""
_SETTLE_S: Final = 2.0
_QUIET_S: Final = 0.3
_QUIET_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side did. Rates in messages a second, CPU in microseconds a message."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float

    def row(self, name: str) -> tuple[str, ...]:
        """For a table with `COLUMNS`."""
        return (
            name,
            f"{self.rate:,.0f}",
            f"{self.cpu_us:.1f}",
            f"{self.p50_ms:.1f}",
            f"{self.p99_ms:.1f}",
        )


class Served(Protocol):
    """A server, or several, that store what devices send."""

    @property
    def name(self) -> str:
        """For errors."""

    @property
    def port(self) -> int:
        """Where devices connect."""

    @property
    def nats_url(self) -> str:
        """Where the stream is read."""

    def cpu_s(self) -> float:
        """CPU time used so far, in seconds."""


async def provision_peer(server: PeerServer) -> None:
    """Make the peer's stream with the settings of the gateway's."""
    client = await nats.connect(server.nats_url)
    await client.jetstream().add_stream(
        name="EVENTS",
        subjects=["events.>"],
        duplicate_window=120,
        deny_delete=True,
        deny_purge=True,
        max_age=604_800,
    )
    await client.close()


class Side:
    """One of two that are compared: its server, its devices, what it did in all its turns.

    Messages are counted by the stream's growth. All that is stored is acknowledged, but nats-server
    sends the acknowledgements of thousands of messages together, seconds apart: their count over a
    turn would depend on where it begins.
    """

    def __init__(
        self,
        target: Served,
        fleet: Callable[[Flow, str], Fleet],
        window: int,
    ) -> None:
        """
        Args:
            target: the server.
            fleet: makes devices for a flow, with names that begin with the given word.
            window: messages in flight, each.
        """
        self._target = target
        self._fleet = fleet
        self._meter = Meter(window)
        self._messages = 0
        self._cpu_s = 0.0
        self._elapsed_s = 0.0

    async def take_turn(self, number: int, seconds: float) -> None:
        """Measure for `seconds` with all windows full, after a time of warming up.

        Raises:
            TargetError: it closed a connection.
        """
        target, meter = self._target, self._meter
        meter.counting = False
        # Other devices each turn: those of the last turn would send what is stored already.
        fleet = self._fleet(meter, f"turn{number}")
        async with fleet.connected(target.port) as devices:
            for device in devices:
                device.fill(min(meter.window, 32))
            await asyncio.sleep(_SETTLE_S)
            meter.counting = True
            stored, cpu_s, began = await self._stored(), target.cpu_s(), perf_counter()
            await asyncio.sleep(seconds)
            self._messages += await self._stored() - stored
            self._elapsed_s += perf_counter() - began
            self._cpu_s += target.cpu_s() - cpu_s
            meter.counting = False
            if fleet.lost:
                raise TargetError(f"{target.name} closed {fleet.lost} connections")

    async def _stored(self) -> int:
        return await _last_seq(self._target)

    @property
    def figures(self) -> Figures:
        return Figures(
            self._messages / self._elapsed_s,
            self._cpu_s / max(1, self._messages) * 1e6,
            self._meter.wait_ms(50),
            self._meter.wait_ms(99),
        )


async def _last_seq(server: Served) -> int:
    client = await nats.connect(server.nats_url)
    state = (await client.jetstream().stream_info("EVENTS")).state
    await client.close()
    return state.last_seq


async def _until_nobody_stores(server: Served) -> None:
    """A linked batch has nobody else's messages between its own. The server may still be storing
    what the last turn has sent.
    """
    before, now = -1, await _last_seq(server)
    async with asyncio.timeout(_QUIET_TIMEOUT_S):
        while now != before:
            await asyncio.sleep(_QUIET_S)
            before, now = now, await _last_seq(server)


class Limit:
    """What the stream of a gateway takes from a publisher without devices, in its turns."""

    def __init__(self, gateway: GatewayServer, kind: Kind, devices: int) -> None:
        """
        Args:
            gateway: holds the stream, and has no devices. It is not the one that is measured with
                devices: a server has the ids of all messages of two minutes in its memory.
            kind: of the batches that the gateway writes.
            devices: in whose names messages are published.
        """
        self._gateway = gateway
        self._kind: Kind = kind
        self._devices = devices
        self._messages = 0
        self._cpu_s = 0.0
        self._elapsed_s = 0.0

    async def take_turn(self, _number: int, seconds: float) -> None:
        """Measure for `seconds`, after a time of warming up.

        Raises:
            TargetError: a batch was refused.
        """
        await _until_nobody_stores(self._gateway)
        publisher = BarePublisher(self._kind, self._devices)
        running = asyncio.create_task(publisher.run(self._gateway.nats_url_of("gateway")))
        try:
            await self._measure(publisher, running, seconds)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def _measure(
        self, publisher: BarePublisher, running: asyncio.Task[None], seconds: float
    ) -> None:
        await asyncio.wait({running}, timeout=_SETTLE_S)
        stored, cpu_s, began = publisher.stored, self._gateway.cpu_s(), perf_counter()
        await asyncio.wait({running}, timeout=seconds)
        self._messages += publisher.stored - stored
        self._elapsed_s += perf_counter() - began
        self._cpu_s += self._gateway.cpu_s() - cpu_s

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self._messages / self._elapsed_s

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU a message, of the servers alone."""
        return self._cpu_s / max(1, self._messages) * 1e6

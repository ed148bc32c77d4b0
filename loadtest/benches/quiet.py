"""A quiet device's ack against the least there is: a bare publish to the same nats-server."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final, cast

from loadtest.benches.rig import Bench
from loadtest.devices.senders import nats_publish
from loadtest.errors import TargetError
from loadtest.servers.baselines import Relay
from loadtest.servers.gateway import GatewayServer

_ROUNDS: Final = 1_500
_CONNECT_TIMEOUT_S: Final = 10.0


class BarePublisher(asyncio.Protocol):
    """The least a program can do to have a message acknowledged: one TCP connection to NATS."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._inbox = b"_INBOX.gateway.%s" % self._name  # where this user may be answered
        self._answered: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._seq = 0
        self.ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def sign_in(self, user: str, password: str) -> None:
        """Authenticate and subscribe to the inbox; `ready` is set once that is answered."""
        assert self._transport is not None
        connect = (
            f'CONNECT {{"verbose":false,"headers":true,"no_responders":true,'
            f'"user":"{user}","pass":"{password}"}}\r\n'
        )
        self._transport.write(connect.encode() + b"SUB %s 1\r\nPING\r\n" % self._inbox)

    def data_received(self, data: bytes) -> None:
        # A ping of the server may come together with an answer.
        if b"PONG" in data:
            self.ready.set()
        if b"PING" in data:
            assert self._transport is not None
            self._transport.write(b"PONG\r\n")
        if self._answered is None:
            return
        if b"-ERR" in data:
            self._answered.set_exception(TargetError(data.decode(errors="replace").strip()))
            self._answered = None
        elif b'"stream"' in data:
            self._answered.set_result(data)
            self._answered = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def publish(self) -> float:
        """Seconds from writing a message to its PubAck.

        Raises:
            TargetError: the server refused the message.
        """
        assert self._transport is not None
        self._seq += 1
        answered = self._answered = asyncio.get_running_loop().create_future()
        began = perf_counter()
        self._transport.write(nats_publish(self._name, self._inbox, b"b:%d" % self._seq))
        await answered
        return perf_counter() - began


class QuietFlow:
    """One message at a time; each ack resolves a future."""

    window = 0

    def __init__(self) -> None:
        self.answered: asyncio.Future[float] | None = None

    def acked(self, count: int, waited_s: float) -> None:
        del count
        if self.answered is not None:
            self.answered.set_result(waited_s)
            self.answered = None


@contextlib.asynccontextmanager
async def _bare_publisher(
    name: str, url: str, port: int | None = None
) -> AsyncIterator[BarePublisher]:
    """A publisher that is signed in to the nats-server of `url`, perhaps through a relay."""
    user, _, rest = url.removeprefix("nats://").partition(":")
    password, _, address = rest.partition("@")
    host, _, own_port = address.partition(":")
    loop = asyncio.get_running_loop()
    _transport, bare = await loop.create_connection(
        lambda: BarePublisher(name), host, port or int(own_port)
    )
    try:
        bare.sign_in(user, password)
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await bare.ready.wait()
        yield bare
    finally:
        bare.close()


async def section_quiet(bench: Bench) -> None:
    """One device, one message in flight, against a bare publish to the same nats-server.

    A third way, through a relay that copies bytes and does nothing else, is the floor: what any
    process between a device and its stream costs here.
    """
    for durability in ("fsync", "stream"):
        with bench.gateway(stream__durability=durability) as gateway:
            waits_s = await _take_turns(bench, gateway)
        p50 = {name: statistics.median(waits) for name, waits in waits_s.items()}
        rows = [
            (
                name,
                f"{p50[name] * 1e3:.3f}",
                f"{statistics.quantiles(waits, n=100)[98] * 1e3:.3f}",
                f"{p50[name] / p50['bare']:.2f}",
            )
            for name, waits in waits_s.items()
        ]
        title = f"{durability}: a quiet device, one message in flight"
        bench.report.table(title, ("", "p50 ms", "p99 ms", "p50 over bare"), rows)
        ratio = p50["gateway"] / p50["bare"]
        if durability == "fsync":
            bench.report.at_most("quiet ack p50 over a bare PubAck", ratio, 2)
        else:
            floor = p50["relay"] / p50["bare"]
            bench.report.at_most("quiet ack p50, default sync, over a relay's", ratio / floor, 1.6)


async def _take_turns(bench: Bench, gateway: GatewayServer) -> dict[str, list[float]]:
    """Seconds to the acknowledgement, of each way, in turn so that all see the same machine."""
    waits_s: dict[str, list[float]] = {"gateway": [], "relay": [], "bare": []}
    url = gateway.nats_url_of("gateway")  # the user that may publish events
    nats_port = int(url.rpartition(":")[2])
    flow = QuietFlow()
    with Relay(bench.fresh_directory("relay"), nats_port) as relay:
        async with (
            _bare_publisher("bare", url) as bare,
            _bare_publisher("relay", url, relay.port) as relayed,
            bench.gateway_devices(1, flow).connected(gateway.port) as (device,),
        ):
            for _ in range(_ROUNDS):
                waits_s["bare"].append(await bare.publish())
                waits_s["relay"].append(await relayed.publish())
                answered = flow.answered = asyncio.get_running_loop().create_future()
                device.fill(1)
                waits_s["gateway"].append(await answered)
    return waits_s

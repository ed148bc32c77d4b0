"""The benchmarks of the message path: `python -m loadtest.bench [SECTION...]`, or `make bench`.

Each compares the gateway with a peer in the same run on the same machine: nats-server's own
WebSocket listener, its devices publishing to JetStream and waiting for PubAcks, with the same
message and the same window. Absolute figures are this machine's; the ratios are what is promised.
"""

import asyncio
import contextlib
import itertools
import math
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final, cast

import nats

from loadtest.credentials import Issuer
from loadtest.errors import TargetError
from loadtest.sections import main_of
from loadtest.targets import GatewayServer, PeerServer, Relay, Target, require_descriptors
from loadtest.verdicts import Report
from loadtest.wire import PAYLOAD, Flow, GatewayDevice, NatsDevice, WireDevice

_SAMPLES_MAX: Final = 200_000
_CONNECT_BATCH: Final = 50
_CONNECT_TIMEOUT_S: Final = 120.0
_SETTLE_S: Final = 2.0
_TURNS: Final = 3
"""Of each side: disk and processor change from one half minute to the next, for both."""


class Meter:
    """Counts acknowledgements and samples how long they took."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.messages = 0
        self.counting = True
        self._waits_s: list[float] = []

    def acked(self, count: int, waited_s: float) -> None:
        if not self.counting:
            return
        self.messages += count
        if waited_s >= 0 and len(self._waits_s) < _SAMPLES_MAX:
            self._waits_s.append(waited_s)

    def reset(self) -> None:
        self.messages = 0
        self._waits_s.clear()

    def wait_ms(self, percent: int) -> float:
        """A percentile of the waiting time."""
        waits = self._waits_s
        return statistics.quantiles(waits, n=100)[percent - 1] * 1000 if len(waits) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side did. Rates in messages a second, CPU in microseconds a message."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Bench:
    """One run: where it keeps its files, who mints its credentials, how long it measures."""

    directory: Path
    issuer: Issuer
    seconds: float
    report: Report
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def gateway(self, **settings: object) -> GatewayServer:
        directory = self.directory / f"gateway-{next(self._numbers)}"
        open_door = {"admission__rate_per_s": 100_000, "admission__burst": 100_000}
        quiet = {"log__level": "warning", "session__first_retry_min_ms": 10}
        settings = {**quiet, **open_door, **settings}
        return GatewayServer(directory, jwks_file=self.issuer.jwks_file, **settings)

    def peer(self, *, fsync: bool) -> PeerServer:
        return PeerServer(self.directory / f"peer-{next(self._numbers)}", fsync=fsync)

    def gateway_devices(self, count: int, flow: Flow, prefix: str = "veh") -> "Fleet":
        tokens = [(f"{prefix}-{n}", self.issuer.token(f"{prefix}-{n}")) for n in range(count)]
        return Fleet([partial(GatewayDevice, name, flow, token=token) for name, token in tokens])

    def nats_devices(self, count: int, flow: Flow, prefix: str = "veh") -> "Fleet":
        return Fleet([partial(NatsDevice, f"{prefix}-{n}", flow) for n in range(count)])


Make = Callable[[Callable[[], None]], WireDevice]


class Fleet:
    """Connections to one target."""

    def __init__(self, makers: Sequence[Make]) -> None:
        self._makers = makers
        self._ready = 0
        self._all_ready = asyncio.Event()
        self.devices: list[WireDevice] = []

    @contextlib.asynccontextmanager
    async def connected(
        self, port: int, *, rate_per_s: float = math.inf
    ) -> AsyncIterator[list[WireDevice]]:
        """All of them, connected and greeted, at most so many a second."""
        loop = asyncio.get_running_loop()
        try:
            for batch in _batches(self._makers, _CONNECT_BATCH):
                made = await asyncio.gather(
                    *(
                        loop.create_connection(lambda m=make: m(self._on_ready), "127.0.0.1", port)  # type: ignore[misc]
                        for make in batch
                    )
                )
                self.devices += [device for _transport, device in made]
                await asyncio.sleep(len(batch) / rate_per_s)
            try:
                await asyncio.wait_for(self._all_ready.wait(), _CONNECT_TIMEOUT_S)
            except TimeoutError:
                refusals = [device.refusal[:200] for device in self.devices if device.refusal]
                raise TargetError(
                    f"{self._ready} of {len(self._makers)} devices connected; {refusals[:1]}"
                ) from None
            yield self.devices
        finally:
            for device in self.devices:
                if device.transport is not None:
                    device.transport.abort()
            await asyncio.sleep(0)

    @property
    def lost(self) -> int:
        return sum(device.lost for device in self.devices)

    def _on_ready(self) -> None:
        self._ready += 1
        if self._ready == len(self._makers):
            self._all_ready.set()


def _batches(makers: Sequence[Make], size: int) -> list[Sequence[Make]]:
    return [makers[start : start + size] for start in range(0, len(makers), size)]


async def provision_peer(server: PeerServer) -> None:
    """The peer's stream, with the promises of the gateway's."""
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
        target: PeerServer | GatewayServer,
        fleet: Callable[[Flow, str], Fleet],
        window: int,
    ) -> None:
        """
        Args:
            target: the server.
            fleet: makes devices with names that begin so.
            window: messages in flight, each.
        """
        self._target = target
        self._fleet = fleet
        self._meter = Meter(window)
        self._messages = 0
        self._cpu_s = 0.0
        self._elapsed_s = 0.0

    async def take_turn(self, number: int, seconds: float) -> None:
        """All devices with their windows full, for a while, after a while of warming up.

        Raises:
            TargetError: it closed a connection.
        """
        target, meter = self._target, self._meter
        meter.counting = False
        # Other devices each turn: those of the last one would send what is stored already.
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
        client = await nats.connect(self._target.nats_url)
        state = (await client.jetstream().stream_info("EVENTS")).state
        await client.close()
        return state.last_seq

    @property
    def figures(self) -> Figures:
        return Figures(
            self._messages / self._elapsed_s,
            self._cpu_s / max(1, self._messages) * 1e6,
            self._meter.wait_ms(50),
            self._meter.wait_ms(99),
        )


async def compare_throughput(
    bench: Bench, *, durability: str, devices: int, window: int
) -> tuple[Figures, Figures]:
    """Both sides in turn, and a table of them. Gives the gateway's figures and the peer's."""
    with (
        bench.peer(fsync=durability == "fsync") as peer,
        bench.gateway(stream__durability=durability) as gateway,
    ):
        await provision_peer(peer)
        sides = (
            Side(gateway, partial(bench.gateway_devices, devices), window),
            Side(peer, partial(bench.nats_devices, devices), window),
        )
        for number in range(_TURNS):
            for side in sides if number % 2 else reversed(sides):
                await side.take_turn(number, bench.seconds)
        ours, theirs = (side.figures for side in sides)
    bench.report.table(
        f"{durability}: {devices} devices, {window} in flight each, {len(PAYLOAD)} bytes",
        ("", "acked msg/s", "CPU us/msg", "ack p50 ms", "ack p99 ms"),
        [
            (name, f"{f.rate:,.0f}", f"{f.cpu_us:.1f}", f"{f.p50_ms:.1f}", f"{f.p99_ms:.1f}")
            for name, f in (("tidegate", ours), ("nats-server WebSocket", theirs))
        ],
    )
    return ours, theirs


async def section_fsync(bench: Bench) -> None:
    """Acknowledged only after fsync, on both sides."""
    ours, theirs = await compare_throughput(bench, durability="fsync", devices=200, window=100)
    ratio = ours.rate / theirs.rate
    bench.report.verdict("fsync, rate over the peer's", ratio, "at least 10", ok=ratio >= 10)


async def section_stream(bench: Bench) -> None:
    """JetStream's default sync, on both sides."""
    ours, theirs = await compare_throughput(bench, durability="stream", devices=200, window=100)
    ratio = ours.rate / theirs.rate
    bench.report.verdict("stream, rate over the peer's", ratio, "at least 0.6", ok=ratio >= 0.6)


async def section_single(bench: Bench) -> None:
    """One message a frame: many devices with one message in flight each. For information."""
    for durability in ("fsync", "stream"):
        ours, theirs = await compare_throughput(bench, durability=durability, devices=500, window=1)
        bench.report.console.print(
            f"  {durability}, one message a frame: {ours.rate / theirs.rate:.2f} of the peer\n"
        )


class BarePublisher(asyncio.Protocol):
    """The least a program can do to have a message acknowledged: one TCP connection to NATS."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._answered: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._seq = 0
        self.ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def sign_in(self, user: str, password: str) -> None:
        assert self._transport is not None
        connect = (
            f'CONNECT {{"verbose":false,"headers":true,"no_responders":true,'
            f'"user":"{user}","pass":"{password}"}}\r\n'
            f"SUB _INBOX.{self._name.decode()} 1\r\nPING\r\n"
        )
        self._transport.write(connect.encode())

    def data_received(self, data: bytes) -> None:
        if b"PONG" in data:
            self.ready.set()
        elif b"PING" in data:
            assert self._transport is not None
            self._transport.write(b"PONG\r\n")
        elif self._answered is not None and b'"stream"' in data:
            self._answered.set_result(data)
            self._answered = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def publish(self) -> float:
        """Seconds from writing a message to its PubAck."""
        assert self._transport is not None
        self._seq += 1
        name = self._name
        headers = b"NATS/1.0\r\nNats-Msg-Id:default:%s:b:%d\r\n\r\n" % (name, self._seq)
        answered = self._answered = self._loop.create_future()
        began = perf_counter()
        self._transport.write(
            b"HPUB events.default.%s.battery.low _INBOX.%s %d %d\r\n%s%s\r\n"
            % (name, name, len(headers), len(headers) + len(PAYLOAD), headers, PAYLOAD)
        )
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


async def _bare_publisher(name: str, url: str, port: int | None = None) -> BarePublisher:
    """Signed in to the nats-server of `url`, perhaps through a relay on `port`."""
    user, _, rest = url.removeprefix("nats://").partition(":")
    password, _, address = rest.partition("@")
    host, _, own_port = address.partition(":")
    loop = asyncio.get_running_loop()
    _transport, bare = await loop.create_connection(
        lambda: BarePublisher(name), host, port or int(own_port)
    )
    bare.sign_in(user, password)
    await asyncio.wait_for(bare.ready.wait(), 10)
    return bare


async def section_quiet(bench: Bench) -> None:
    """One device, one message in flight, against a bare publish to the same nats-server.

    A third way, through a relay that copies bytes and does nothing else, is the floor: what any
    process between a device and its stream costs here.
    """
    rounds = 1_500
    loop = asyncio.get_running_loop()
    for durability in ("fsync", "stream"):
        with bench.gateway(stream__durability=durability) as gateway:
            nats_port = int(gateway.nats_url.rpartition(":")[2])
            with Relay(bench.directory / f"relay-{durability}", nats_port) as relay:
                bare = await _bare_publisher("bare", gateway.nats_url)
                relayed = await _bare_publisher("relay", gateway.nats_url, relay.port)
                flow = QuietFlow()
                fleet = bench.gateway_devices(1, flow)
                waits_s: dict[str, list[float]] = {"gateway": [], "relay": [], "bare": []}
                async with fleet.connected(gateway.port) as (device,):
                    for _ in range(rounds):  # in turn, so that all see the same machine
                        waits_s["bare"].append(await bare.publish())
                        waits_s["relay"].append(await relayed.publish())
                        answered = flow.answered = loop.create_future()
                        device.fill(1)
                        waits_s["gateway"].append(await answered)
                bare.close()
                relayed.close()
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
            what = "quiet ack p50 over a bare PubAck"
            bench.report.verdict(what, ratio, "at most 2", ok=ratio <= 2)
        else:
            floor = p50["relay"] / p50["bare"]
            bench.report.console.print(
                f"  {durability}: {ratio:.2f}; a relay that only copies bytes: {floor:.2f}\n"
            )


async def _memory_per_connection(target: Target, fleet: Fleet, count: int) -> float:
    await asyncio.sleep(_SETTLE_S)
    before = target.memory_bytes()
    async with fleet.connected(target.port):
        await asyncio.sleep(_SETTLE_S)
        return (target.memory_bytes() - before) / count


async def section_idle(bench: Bench) -> None:
    """Memory an idle connection."""
    count = 5_000
    require_descriptors(count + 200)
    with bench.peer(fsync=True) as peer:
        await provision_peer(peer)
        theirs = await _memory_per_connection(peer, bench.nats_devices(count, Meter(0)), count)
    with bench.gateway() as gateway:
        ours = await _memory_per_connection(gateway, bench.gateway_devices(count, Meter(0)), count)
    bench.report.table(
        f"{count:,} idle connections",
        ("", "KiB a connection"),
        [
            ("tidegate", f"{ours / 1024:.1f}"),
            ("nats-server WebSocket", f"{theirs / 1024:.1f}"),
        ],
    )
    wanted = f"at most 10 and below {theirs / 1024:.1f}"
    ok = ours <= 10 * 1024 and ours < theirs
    bench.report.verdict("idle memory, KiB a connection", ours / 1024, wanted, ok=ok)


async def section_hold(bench: Bench) -> None:
    """15,000 idle connections with keepalive, while 1,000 messages a second flow."""
    idle, busy, rate = 15_000, 100, 1_000
    require_descriptors(idle + busy + 500)
    meter = Meter(0)
    idle_fleet = bench.gateway_devices(idle, Meter(0))
    busy_fleet = bench.gateway_devices(busy, meter, "busy")
    keepalive = {"keepalive__interval_ms": 20_000, "keepalive__timeout_ms": 15_000}
    with bench.gateway(**keepalive) as gateway:
        async with (
            idle_fleet.connected(gateway.port),
            busy_fleet.connected(gateway.port) as senders,
        ):
            seconds = max(30.0, bench.seconds)
            cpu_s, began, sent = gateway.cpu_s(), perf_counter(), 0
            turn = itertools.cycle(senders)
            while (elapsed := perf_counter() - began) < seconds:
                while sent < elapsed * rate:
                    next(turn).fill(1)
                    sent += 1
                await asyncio.sleep(0.005)
            await asyncio.sleep(_SETTLE_S)
            cpu = (gateway.cpu_s() - cpu_s) / (perf_counter() - began)
            lost = idle_fleet.lost + busy_fleet.lost
            rows = [
                ("connections held / lost", f"{gateway.status()['connections']:,} / {lost}"),
                ("messages sent / acknowledged", f"{sent:,} / {meter.messages:,}"),
                ("ack p50 / p99 ms", f"{meter.wait_ms(50):.1f} / {meter.wait_ms(99):.1f}"),
                ("CPU of gateway and nats-server, cores", f"{cpu:.2f}"),
                ("gateway memory, MiB", f"{gateway.memory_bytes() / 2**20:.0f}"),
            ]
            bench.report.table(
                f"{idle:,} idle connections for {seconds:.0f} s, {rate:,} msg/s", ("", ""), rows
            )
            ok = lost == 0 and meter.messages == sent
            bench.report.verdict("hold, connections lost", lost, "0, all acknowledged", ok=ok)


SECTIONS: Final = {
    "fsync": section_fsync,
    "stream": section_stream,
    "single": section_single,
    "quiet": section_quiet,
    "idle": section_idle,
    "hold": section_hold,
}


Section = Callable[[Bench], Awaitable[None]]


async def run_sections(
    sections: Mapping[str, Section], names: Sequence[str], seconds: float
) -> int:  # fmt: skip
    """Run the named ones of `sections`.

    Returns:
        1 if a promise was missed, else 0.
    """
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        bench = Bench(Path(directory), Issuer(Path(directory) / "jwks.json"), seconds, report)
        for name in names:
            await sections[name](bench)
    if report.failed:
        report.console.print(f"[red]missed:[/] {', '.join(report.failed)}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    run = partial(run_sections, SECTIONS)
    main_of("bench", "Benchmarks of the message path.", SECTIONS, run)

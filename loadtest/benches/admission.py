"""The benchmarks of admission: `python -m loadtest.benches.admission [SECTION...]`.

Every figure is a ratio within one run: a refusal against an admission and against the least a
server can do, what was admitted against R, a storm's recovery against N/R.
"""

import asyncio
import contextlib
import random
import socket
import ssl
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from time import monotonic
from typing import Final

from loadtest.benches.rig import Bench, Fleet, Meter, run_sections
from loadtest.benches.sections import main_of
from loadtest.devices.policies import make_policy
from loadtest.devices.steady import Seen, SteadyDevices
from loadtest.devices.storm import StormDevice, StormLog, storm
from loadtest.devices.wire import GatewayDevice, handshake_request, masked_frame
from loadtest.errors import TargetError
from loadtest.servers.certificates import make_certificate
from loadtest.servers.targets import NatsServer, RedisServer, Target, free_port, require_descriptors
from loadtest.simulator import StormPlan, simulate

_ROUND: Final = 100
_ANSWER_TIMEOUT_S: Final = 20.0
_CUT_S: Final = 1.0
"""In which 10,000 connections end at once, here and in the gateway: told apart from the storm."""
_HELLO: Final = masked_frame(1, b'{"hello":{"outbox":"b","oldest":1}}')
_COLD: Final = {"admission__resume_cost": 1.0, "admission__device_knock_burst": 10_000}
"""N/R is the yardstick: everybody costs one, and no device is told off for a benchmark's sake."""
_REFUSING: Final = {
    "admission__rate_per_s": 1.0,
    "admission__rate_floor_per_s": 1.0,
    "admission__burst": 1,
    "admission__park_ms": 0,
    "admission__horizon_ms": 86_400_000,
    **_COLD,
}


class BareServer(Target):
    """Accept, read, write, close on uvloop: the least a server can do with a knock."""

    name = "bare"

    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "loadtest.servers.bare", str(self.port)]


# What a knock costs


def _connections(port: int, requests: Sequence[bytes]) -> list[socket.socket]:
    made = []
    for request in requests:
        connection = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_TIMEOUT_S)
        connection.sendall(request)
        made.append(connection)
    return made


def _knock(port: int, requests: Sequence[bytes]) -> None:
    """Knock all at once and hear the answers."""
    made = _connections(port, requests)
    for connection in made:
        connection.recv(4_096)
        connection.close()


def _come_in(port: int, requests: Sequence[bytes]) -> None:
    """Knock, say hello, be welcomed, leave."""
    made = _connections(port, requests)
    for connection in made:
        answer = connection.recv(4_096)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise TargetError(f"not admitted: {answer[:200]!r}")
        connection.sendall(_HELLO)
    for connection in made:
        connection.recv(4_096)
        connection.close()


async def section_refusal(bench: Bench) -> None:
    """CPU of a refusal, of an admission, and of the least a server can do, in turn."""
    count = 4_000
    requests = [handshake_request(bench.issuer.token(f"veh-{n}").encode()) for n in range(count)]
    admitting = {"admission__rate_per_s": 100_000, "admission__burst": 100_000, **_COLD}
    with (
        BareServer(bench.directory / "bare") as bare,
        bench.gateway(**_REFUSING) as refuser,
        bench.gateway(**admitting) as admitter,
    ):
        work: dict[str, tuple[Target, Callable[[int, Sequence[bytes]], None]]] = {
            "bare accept, read, write, close": (bare, _knock),
            "refusal": (refuser, _knock),
            "admission: handshake, hello, welcome, close": (admitter, _come_in),
        }
        cpu_us = dict.fromkeys(work, 0.0)
        first_us = {}
        for name, (target, act) in work.items():  # signatures are checked once, and counted apart
            before = target.cpu_s()
            for start in range(0, count, _ROUND):
                act(target.port, requests[start : start + _ROUND])
            first_us[name] = (target.cpu_s() - before) / count * 1e6
        rounds = 5
        for _ in range(rounds):
            for start in range(0, count, _ROUND * 10):
                for name, (target, act) in work.items():
                    before = target.cpu_s()
                    for inner in range(start, start + _ROUND * 10, _ROUND):
                        act(target.port, requests[inner : inner + _ROUND])
                    cpu_us[name] += (target.cpu_s() - before) / (count * rounds) * 1e6
    least, refusal, admission = cpu_us.values()
    bench.report.table(
        f"CPU a knock, {count * rounds:,} each, {_ROUND} at once",
        ("", "us", "us with a signature to check"),
        [(name, f"{cpu_us[name]:.0f}", f"{first_us[name]:.0f}") for name in work],
    )
    _, first_refusal, first_admission = first_us.values()
    bench.report.console.print(
        f"  with the signature, refusal over admission: {first_refusal / first_admission:.2f}"
    )
    ratio = refusal / admission
    bench.report.verdict("refusal over admission", ratio, "at most 0.20", ok=ratio <= 0.2)
    ratio = refusal / least
    bench.report.verdict("refusal over the least", ratio, "at most 2", ok=ratio <= 2)


# TLS


def _tls_connection(port: int, context: ssl.SSLContext, request: bytes) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_TIMEOUT_S)
    connection = context.wrap_socket(plain, server_hostname="localhost")
    connection.sendall(request)
    return connection


def _knock_over_tls(port: int, context: ssl.SSLContext, requests: Sequence[bytes]) -> None:
    for request in requests:
        with _tls_connection(port, context, request) as connection:
            connection.recv(4_096)


def _come_in_over_tls(port: int, context: ssl.SSLContext, requests: Sequence[bytes]) -> None:
    for request in requests:
        with _tls_connection(port, context, request) as connection:
            answer = connection.recv(4_096)
            if not answer.startswith(b"HTTP/1.1 101"):
                raise TargetError(f"not admitted: {answer[:200]!r}")
            connection.sendall(_HELLO)
            connection.recv(4_096)


async def section_tls(bench: Bench) -> None:
    """CPU of a refusal and of an admission over TLS, and memory of an idle TLS session.

    The handshake costs far more than what is decided after it, so a refusal is no cheaper than an
    admission by much; it must not be dearer.
    """
    count, rounds, idle = 300, 3, 1_000
    files = make_certificate(bench.directory / "tls")
    context = files.client_context()
    requests = [handshake_request(bench.issuer.token(f"tls-{n}").encode()) for n in range(count)]
    tls = {"tls__cert_file": files.cert, "tls__key_file": files.key}
    # One knocks after the other: no slot must come up meanwhile.
    refusing = {**_REFUSING, "admission__rate_per_s": 0.02, "admission__rate_floor_per_s": 0.02}
    admitting = {"admission__rate_per_s": 100_000, "admission__burst": 100_000, **_COLD}
    with (
        bench.gateway(**refusing, **tls) as refuser,
        bench.gateway(**admitting, **tls) as admitter,
    ):
        work = {
            "refusal over TLS": (refuser, _knock_over_tls),
            "admission over TLS": (admitter, _come_in_over_tls),
        }
        cpu_us = dict.fromkeys(work, 0.0)
        for round_ in range(-1, rounds):  # in turn; in the first one signatures are checked
            for name, (target, act) in work.items():
                before = target.cpu_s()
                act(target.port, context, requests)
                if round_ >= 0:
                    cpu_us[name] += (target.cpu_s() - before) / (count * rounds) * 1e6
    kib = {}
    for name, settings, trust in (("plain", {}, None), ("TLS", tls, context)):
        with bench.gateway(**admitting, **settings) as gateway:
            fleet = bench.gateway_devices(idle, Meter(0), prefix=f"idle-{name}")
            before = gateway.memory_bytes()
            async with fleet.connected(gateway.port, rate_per_s=300, context=trust):
                await asyncio.sleep(2.0)
                kib[name] = (gateway.memory_bytes() - before) / idle / 1_024
    bench.report.table(
        f"over TLS (a full handshake each), {count * rounds:,} knocks, {idle:,} idle sessions",
        ("", ""),
        [
            *((f"CPU of the {name}", f"{us:,.0f} us") for name, us in cpu_us.items()),
            *((f"memory of an idle session, {name}", f"{k:.1f} KiB") for name, k in kib.items()),
        ],
    )
    refusal, admission = cpu_us.values()
    ratio = refusal / admission
    bench.report.verdict("refusal over admission, TLS", ratio, "at most 1.1", ok=ratio <= 1.1)
    bench.report.verdict("idle over TLS, KiB", kib["TLS"], "at most 48", ok=kib["TLS"] <= 48)


async def section_tls_storm(bench: Bench) -> None:
    """Devices over TLS, all cut at once: nobody unanswered, and in within N/R."""
    count, rate = 1_500, 75
    files = make_certificate(bench.directory / "tls-storm")
    settings = {
        "admission__rate_per_s": rate,
        "admission__rate_floor_per_s": rate,
        "admission__burst": 30,
        "tls__cert_file": files.cert,
        "tls__key_file": files.key,
        **_COLD,
    }
    with bench.gateway(**settings) as gateway:
        crowd = Crowd(
            bench, count, [gateway.port], "ticket", first_retry_ms=8_000,
            context=files.client_context(),
        )  # fmt: skip
        complete = await crowd.run(120.0)
        await crowd.stop()
    recovery = max(crowd.log.admissions) / (count / rate)
    bench.report.table(
        f"{count:,} devices over TLS, R = {rate}/s",
        ("recovery / (N/R)", "knocks a device", "without an answer", "left out"),
        [
            (
                f"{recovery:.3f}",
                f"{crowd.knocks_a_device:.2f}",
                str(crowd.log.failures),
                str(count - crowd.inside),
            )
        ],
    )
    bench.report.verdict(
        "recovery over N/R, TLS", recovery, "at most 1.05, all in", ok=complete and recovery <= 1.05
    )
    failures = crowd.log.failures
    bench.report.verdict("knocks over TLS without an answer", failures, "0", ok=failures == 0)


# Storms


class Crowd:
    """Devices of a storm and their log."""

    def __init__(
        self,
        bench: Bench,
        count: int,
        ports: Sequence[int],
        policy: str,
        *,
        first_retry_ms: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.log = StormLog()
        self.ports = ports
        self.inside = 0
        self.everybody_in = asyncio.Event()
        rng = random.Random(count)
        self.devices = [
            StormDevice(
                name,
                bench.issuer.token(name),
                ports,
                make_policy(policy, rng, first_retry_ms=first_retry_ms),
                self.log,
                self._on_in,
                rng,
                context,
            )
            for name in (f"{policy}-{number}" for number in range(count))
        ]

    def _on_in(self) -> None:
        self.inside += 1
        if self.inside >= len(self.devices) and not self.devices[0].comes_back:
            self.everybody_in.set()

    @property
    def knocks_a_device(self) -> float:
        return sum(device.knocks for device in self.devices) / len(self.devices)

    def connected(self, *, rate_per_s: float) -> AbstractAsyncContextManager[object]:
        """All of them connected, until they are cut at once at the end of it."""
        flow, port = Meter(0), self.ports[0]
        makers = [
            partial(GatewayDevice, device.name, flow, token=device.token) for device in self.devices
        ]
        return Fleet(makers).connected(port, rate_per_s=rate_per_s)

    async def run(self, timeout_s: float) -> bool:
        """The storm, until all are in. Whether they are."""
        self.log.began = monotonic()
        return await storm(self.devices, self.everybody_in, timeout_s)

    async def stop(self) -> None:
        for device in self.devices:
            device.stop()
        await asyncio.sleep(0.2)

    def admitted_between(self, start: float, end: float) -> float:
        """Admissions a second in that part of the storm."""
        return sum(start <= time < end for time in self.log.admissions) / (end - start)


async def section_sustained(bench: Bench) -> None:
    """What is admitted over 60 s of constant demand, against R.

    Devices come in, leave at once and knock again, so that somebody always waits.
    """
    seconds, warm_s = 60.0, 2.0
    rows, worst = [], 0.0
    for rate in (50, 500, 2_000):
        settings = {
            "admission__rate_per_s": rate,
            "admission__rate_floor_per_s": rate,
            "admission__burst": max(10, rate // 10),
            **_COLD,
        }
        with bench.gateway(**settings) as gateway:
            count = rate * 3 // 4
            crowd = Crowd(bench, count, [gateway.port], "ticket", first_retry_ms=1_000)
            for device in crowd.devices:
                device.comes_back = True
            crowd.everybody_in.clear()
            cpu_s = gateway.cpu_s()
            await crowd.run(warm_s + seconds)
            cpu = (gateway.cpu_s() - cpu_s) / (warm_s + seconds)
            await crowd.stop()
        ratio = crowd.admitted_between(warm_s, warm_s + seconds) / rate
        worst = max(worst, abs(ratio - 1))
        rows.append((f"{rate:,}/s", f"{ratio:.4f}", f"{cpu:.2f}"))
    bench.report.table(
        "admitted over R, 60 s", ("R", "admitted / R", "cores of gateway and nats-server"), rows
    )
    bench.report.verdict("sustained, off R by", worst, "at most 0.02", ok=worst <= 0.02)


async def section_storm(bench: Bench) -> None:
    """A blip cuts 10,000 of 11,000 devices, R = 500/s; with tickets and without.

    The other 1,000 go on sending. What is calm is all of them connected, before and after.
    """
    count, rate = 10_000, 500
    require_descriptors(count + 2_000)
    settings = {
        "admission__rate_per_s": rate,
        "admission__rate_floor_per_s": rate,
        "admission__burst": 100,
        "session__first_retry_min_ms": 2_000,
        **_COLD,
    }
    rows, compared = [], []
    for policy in ("ticket", "full-jitter"):
        with bench.gateway(**settings) as gateway:
            tokens = [(f"calm-{n}", bench.issuer.token(f"calm-{n}")) for n in range(1_000)]
            crowd = Crowd(bench, count, [gateway.port], policy, first_retry_ms=count)
            async with SteadyDevices(
                gateway.port, tokens, rate_per_s=2_000, connect_per_s=400
            ) as steady:
                async with crowd.connected(rate_per_s=0.9 * rate):
                    before = await _calm(steady, count / rate / 2)
                storming = asyncio.create_task(crowd.run(240.0))
                await asyncio.sleep(_CUT_S)
                cut = await steady.seen()
                complete = await storming
                stormy = await steady.seen()
                after = await _calm(steady, count / rate / 2)
                await crowd.stop()
        # Together as long as the storm, on both sides of it: the machine changes meanwhile.
        calm_ms = (before.p99_ms + after.p99_ms) / 2
        recovery = max(crowd.log.admissions) / (count / rate)
        rows.append(
            (
                policy,
                f"{recovery:.3f}" + ("" if complete else " (not all)"),
                f"{crowd.knocks_a_device:.2f}",
                str(crowd.log.dishonoured),
                f"{calm_ms:.1f} / {cut.p99_ms:.1f} / {stormy.p99_ms:.1f}",
                str(stormy.lost),
            )
        )
        simulated = simulate(
            StormPlan(devices=count, rate_per_s=rate, policy=policy, rtt_s=0.002, lateness_s=0.005)
        )
        compared.append(
            (
                policy,
                f"{recovery:.3f} / {simulated.recovery_s / simulated.ideal_s:.3f}",
                f"{crowd.knocks_a_device:.2f} / {simulated.knocks_a_device:.2f}",
            )
        )
        if policy == "ticket":
            figures = (
                recovery,
                crowd.knocks_a_device,
                crowd.log.dishonoured,
                stormy.p99_ms / calm_ms,
            )
            late = crowd.log.lateness
    bench.report.table(
        f"{count:,} devices cut at once, R = {rate}/s, 1,000 stay and send 2 msg/s each",
        ("policy", "recovery / (N/R)", "knocks a device", "tickets dishonoured",
         "connected ack p99 ms, calm / first second / storm", "connected lost"),
        rows,
    )  # fmt: skip
    bench.report.console.print(f"  lateness at the slot, p99: {_p99(late) * 1000:.0f} ms")
    bench.report.table(
        "the same storm in virtual time",
        ("policy", "recovery / (N/R), real / simulated", "knocks a device, real / simulated"),
        compared,
    )
    recovery, knocks, dishonoured, slower = figures
    bench.report.verdict("recovery over N/R", recovery, "at most 1.05", ok=recovery <= 1.05)
    bench.report.verdict("knocks a device", knocks, "at most 2.1", ok=knocks <= 2.1)
    bench.report.verdict("tickets dishonoured", dishonoured, "0", ok=dishonoured == 0)
    bench.report.verdict("connected ack p99, storm / calm", slower, "at most 2", ok=slower <= 2)


async def _calm(steady: SteadyDevices, seconds: float) -> Seen:
    """What the connected see while nothing happens, a moment after whatever did."""
    await asyncio.sleep(_CUT_S)
    await steady.seen()
    await asyncio.sleep(seconds)
    return await steady.seen()


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


async def section_plain(bench: Bench) -> None:
    """Clients that know no tickets but honour `Retry-After`: nobody starves."""
    count, rate = 3_000, 200
    settings = {
        "admission__rate_per_s": rate,
        "admission__rate_floor_per_s": rate,
        "admission__burst": 50,
        **_COLD,
    }
    with bench.gateway(**settings) as gateway:
        crowd = Crowd(bench, count, [gateway.port], "retry-after", first_retry_ms=2_000)
        complete = await crowd.run(120.0)
        await crowd.stop()
    most = max(device.knocks for device in crowd.devices)
    recovery = max(crowd.log.admissions) / (count / rate)
    bench.report.table(
        f"{count:,} devices that honour Retry-After and no ticket, R = {rate}/s",
        ("recovery / (N/R)", "knocks a device", "most knocks of one", "left out"),
        [(f"{recovery:.2f}", f"{crowd.knocks_a_device:.2f}", str(most), str(count - crowd.inside))],
    )
    bench.report.verdict(
        "most knocks of one device", most, "at most 3, all in", ok=complete and most <= 3
    )


# The fleet


class Nodes:
    """Several gateways over one Redis and one nats-server."""

    def __init__(
        self,
        bench: Bench,
        stack: ExitStack,
        count: int,
        rate: float,
        *,
        clocks: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """
        Args:
            bench: the run.
            stack: ends the servers.
            count: gateways.
            rate: R.
            clocks: the environment that gives `redis`, `0`, `1`, ... a clock of its own.
        """
        clocks = clocks or {}
        directory = bench.directory / f"fleet-{free_port()}"
        self.redis = RedisServer(directory / "redis")
        self.redis.more_environment = clocks.get("redis", {})
        stack.enter_context(self.redis)
        nats = stack.enter_context(NatsServer(directory / "nats"))
        self.gateways = []
        for number in range(count):
            gateway = bench.gateway(
                nats__urls=nats.url,
                stream__durability="stream",
                cluster__redis_url=self.redis.url,
                admission__rate_per_s=rate,
                admission__rate_floor_per_s=rate,
                admission__burst=60,
                **_COLD,
            )
            gateway.more_environment = clocks.get(str(number), {})
            self.gateways.append(stack.enter_context(gateway))

    @property
    def ports(self) -> list[int]:
        return [gateway.port for gateway in self.gateways]

    async def settle(self) -> None:
        """Wait until every node has heard of every other."""
        deadline = monotonic() + 20
        while monotonic() < deadline:
            pages = [await asyncio.to_thread(gateway.status) for gateway in self.gateways]
            if all(page["admission"]["fleet"]["nodes"] == len(self.gateways) for page in pages):
                return
            await asyncio.sleep(0.2)
        raise TargetError("the nodes did not find each other")


@contextlib.contextmanager
def _fleet(bench: Bench, rate: float) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(bench, stack, 3, rate)


async def section_cluster(bench: Bench) -> None:
    """Three nodes over one Redis: calm, with one killed, with Redis killed and back."""
    count, rate = 6_000, 300
    require_descriptors(count + 2_000)
    expected_s = count / rate
    rows = []

    with _fleet(bench, rate) as nodes:
        await nodes.settle()
        crowd = Crowd(bench, count, nodes.ports, "ticket", first_retry_ms=2_000)
        await crowd.run(120.0)
        off = abs(crowd.admitted_between(2.0, expected_s * 0.9) / rate - 1)
        rows.append(_row("three nodes", crowd, expected_s, f"{off:.3f} off R"))
        await crowd.stop()

    with _fleet(bench, rate) as nodes:
        await nodes.settle()
        crowd = Crowd(bench, count, nodes.ports, "ticket", first_retry_ms=2_000)
        running = asyncio.create_task(crowd.run(120.0))
        await asyncio.sleep(expected_s * 0.4)
        killed_at = crowd.log.now()
        await asyncio.to_thread(nodes.gateways[0].kill)
        await running
        killed = max(crowd.log.admissions) / expected_s
        dishonoured = crowd.log.dishonoured
        rows.append(_row(f"one killed at {killed_at:.1f} s", crowd, expected_s, ""))
        await crowd.stop()

    with _fleet(bench, rate) as nodes:
        await nodes.settle()
        # Twice as many: a second in which a node stood still should not decide what comes after.
        count, expected_s = 2 * count, 2 * expected_s
        crowd = Crowd(bench, count, nodes.ports, "ticket", first_retry_ms=int(expected_s * 900))
        running = asyncio.create_task(crowd.run(120.0))
        await asyncio.sleep(expected_s * 0.2)
        nodes.redis.kill()
        lost_at = crowd.log.now()
        await asyncio.sleep(expected_s * 0.2)
        nodes.redis.start()
        back_at = crowd.log.now()
        await running
        away = abs(crowd.admitted_between(lost_at + 1, back_at) / rate - 1)
        last = max(crowd.log.admissions)  # while anybody waited, and not the tail
        after = abs(crowd.admitted_between(back_at + 1, min(expected_s, last) - 1) / rate - 1)
        rows.append(
            _row("Redis killed and back", crowd, expected_s, f"{away:.3f} off R, then {after:.3f}")
        )
        await crowd.stop()

    bench.report.table(
        f"{count // 2:,} devices ({count:,} with Redis killed), three nodes, R = {rate}/s",
        ("", "recovery / (N/R)", "knocks a device", "tickets dishonoured", "admissions"),
        rows,
    )
    bench.report.verdict("fleet off R by", off, "at most 0.03", ok=off <= 0.03)
    bench.report.verdict("one killed, recovery over N/R", killed, "at most 1.15, none dishonoured",
                         ok=killed <= 1.15 and dishonoured == 0)  # fmt: skip
    bench.report.verdict("Redis away, off R by", away, "at most 0.25", ok=away <= 0.25)
    bench.report.verdict("Redis back, off R by", after, "at most 0.03", ok=after <= 0.03)


def _row(name: str, crowd: Crowd, expected_s: float, note: str) -> tuple[str, str, str, str, str]:
    recovery = max(crowd.log.admissions) / expected_s
    missing = len(crowd.devices) - crowd.inside
    return (
        name,
        f"{recovery:.3f}" + (f" ({missing} out)" if missing > 0 else ""),
        f"{crowd.knocks_a_device:.2f}",
        str(crowd.log.dishonoured),
        note,
    )


SECTIONS: Final = {
    "refusal": section_refusal,
    "tls": section_tls,
    "tls-storm": section_tls_storm,
    "sustained": section_sustained,
    "storm": section_storm,
    "plain": section_plain,
    "cluster": section_cluster,
}


if __name__ == "__main__":
    run = partial(run_sections, SECTIONS)
    main_of("admission", "Benchmarks of admission.", SECTIONS, run)

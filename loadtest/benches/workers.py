"""The benchmarks of several workers on one port: `make bench-workers`.

    python -m loadtest.benches.workers [SECTION...]

Each compares workers with one process in the same run. All processes of a gateway count:
supervisor, workers, nats-server and Redis.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import nats

from loadtest.benches.knock_costs import Act, come_in, knock, requests_of
from loadtest.benches.knocking import offered, refused_per_s
from loadtest.benches.rig import COLD, REFUSING, Bench, Settings, fixed_rate
from loadtest.benches.sections import main_of_sections
from loadtest.benches.slowed import slowed
from loadtest.devices.crowd import Crowd
from loadtest.devices.limits import require_descriptors
from loadtest.devices.prepared import PreparedDevices
from loadtest.devices.steady import SteadyDevices
from loadtest.servers import proc
from loadtest.servers.gateway import GatewayServer
from loadtest.waiting import until

_STEP: Final = 1_000
_IDLE_S: Final = 4.0
_UNTIL_BOTH_KNOW: Final = 8
"""After so many knocks, all but a hundredth of the devices have met both workers."""
_EIGHT_DEVICES: Final = 16_000
_EIGHT_PER_S: Final = 20_000
_DEVICE_PROCESSES: Final = 2
_ROOM_FOR_MANY: Final[Settings] = {"server__anonymous_max": 2_048}
"""One process has 20,000 descriptors here, and the default leaves 15,648 of them to devices."""
_FACTS_STORED_S: Final = 60.0
_AFTER_S: Final = {"refusal": 0.0, "admission": 1.5}
"""Admissions cause work later, which counts: facts of presence, news for the other nodes."""
_SHARE: Final = 0.2
"""Of a core, for each worker in the section `refuse`."""


async def section_costs(bench: Bench) -> None:
    """CPU of a refusal and of an admission, of two workers over one process, in turns.

    Beside them, for information: two processes that share nothing, each with half of the devices.
    Their difference to one process is what the machine takes for it that two processes wake, each
    for half of the work. Devices come back within seconds, so no outbox is looked up again.
    """
    count, rounds = _STEP, 20
    requests = requests_of(bench, count)
    figures = {
        name: await _costs(bench, act, settings, requests, rounds, _AFTER_S[name])
        for name, act, settings in (("refusal", knock, REFUSING), ("admission", come_in, COLD))
    }
    bench.report.table(
        f"CPU a knock, {count * rounds:,} each, all processes, without what they use idle",
        ("", "one process, us", "two processes apart, us", "two workers, us"),
        [(name, *(f"{us:.0f}" for us in cpu_us)) for name, cpu_us in figures.items()],
    )
    for name, (one, _apart, two) in figures.items():
        bench.report.at_most(f"CPU of a {name}, two workers over one process", two / one, 1.1)


async def _costs(
    bench: Bench,
    act: Act,
    settings: Settings,
    requests: Sequence[bytes],
    rounds: int,
    after_s: float,
) -> list[float]:
    """Microseconds a knock: of one process, of two that share nothing, of two workers.

    What they use in the `after_s` after each step counts, too.
    """
    with (
        bench.gateway(**settings) as one,
        bench.gateway(**settings) as other,
        bench.workers(2, **settings) as two,
    ):
        sides: list[list[GatewayServer]] = [[one], [one, other], [two]]
        idle = [sum([await _idle_share(each) for each in side]) for side in sides]
        cpu_us = [0.0] * len(sides)
        # A process checks each signature once, and looks each outbox up once: not measured.
        for target, times in ((one, 1), (other, 1), (two, _UNTIL_BOTH_KNOW)):
            for _ in range(times):
                act([target.port], requests)
        for start in list(range(0, len(requests), _STEP)) * rounds:
            for number, side in enumerate(sides):
                before, began = sum(each.cpu_s() for each in side), perf_counter()
                act([each.port for each in side], requests[start : start + _STEP])
                await asyncio.sleep(after_s)
                took_s = perf_counter() - began
                used_s = sum(each.cpu_s() for each in side) - before - took_s * idle[number]
                cpu_us[number] += used_s / (len(requests) * rounds) * 1e6
    return cpu_us


async def _idle_share(target: GatewayServer) -> float:
    """The share of a core that a gateway without devices uses."""
    await asyncio.sleep(1.0)
    before = target.cpu_s()
    await asyncio.sleep(_IDLE_S)
    return (target.cpu_s() - before) / _IDLE_S


async def section_refuse(bench: Bench) -> None:
    """Two workers refuse all of 1.2 times what one can; each has a fifth of a core."""
    requests = requests_of(bench, 2_000)
    settings: Settings = {
        **REFUSING,
        "admission__address_knocks_per_s": 1_000_000,
        "admission__address_knock_burst": 1_000_000,
    }
    with bench.gateway(**settings) as one:
        knock([one.port], requests)
        with slowed(one.pids[:1], _SHARE):
            most = await refused_per_s(one.port, requests, bench.seconds)
    with bench.workers(2, **settings) as two:
        for _ in range(3):
            knock([two.port], requests)
        with slowed([worker["pid"] for worker in two.workers()], _SHARE):
            seen = await offered(two.port, requests, 1.2 * most, bench.seconds)
    bench.report.table(
        f"knocks that are refused, {_SHARE:g} of a core for each worker",
        ("one, a second", "offered to two", "answered", "without an answer", "p99 ms"),
        [
            (
                f"{most:,.0f}",
                f"{seen.offered_per_s:,.0f}",
                f"{seen.answered:,}",
                str(seen.unanswered),
                f"{seen.p99_ms:.0f}",
            )
        ],
    )
    ok = seen.unanswered == 0 and seen.offered_per_s >= 1.15 * most
    bench.report.verdict(
        "offered over what one can", seen.offered_per_s / most, "at least 1.15, all answered", ok=ok
    )


async def section_killed(bench: Bench) -> None:
    """A storm over two workers, one of which is killed in the middle of it."""
    count, rate, steady_count = 6_000, 300, 400
    expected_s = count / rate
    require_descriptors(2 * count)
    settings: Settings = {**fixed_rate(rate, 60), "session__first_retry_min_ms": 2_000}
    with bench.workers(2, **settings) as gateway:
        tokens = bench.credentials(steady_count, "calm")
        async with SteadyDevices(
            gateway.port, tokens, rate_per_s=400, connect_per_s=0.8 * rate
        ) as steady:
            here = gateway.workers()[0]["devices"]
            crowd = Crowd(bench.issuer, count, [gateway.port], "ticket", first_retry_ms=2_000)
            storming = asyncio.create_task(crowd.run(120.0))
            await asyncio.sleep(expected_s * 0.4)
            acked = (await steady.seen()).acked
            await asyncio.to_thread(gateway.kill_worker, 0)
            await storming
            seen = await steady.seen()
            acked += seen.acked
            back = await asyncio.to_thread(gateway.workers)
            stored = await _stored(gateway)
            await crowd.stop()
    recovery = crowd.recovery_over(expected_s)
    bench.report.table(
        f"{count:,} devices, two workers, R = {rate}/s, one worker killed",
        ("", ""),
        [
            ("recovery / (N/R)", f"{recovery:.3f}"),
            ("knocks a device", f"{crowd.knocks_a_device:.2f}"),
            ("tickets dishonoured", str(crowd.log.dishonoured)),
            ("latest at a slot, seconds", f"{max(crowd.log.lateness, default=0.0):.1f}"),
            ("refusals", ", ".join(f"{n} {why}" for why, n in crowd.log.refusals.items())),
            ("attempts without an answer", str(crowd.log.failures)),
            ("connected before, on the worker that is killed", str(here)),
            ("connected that were cut", str(seen.lost)),
            ("ack p99 of the connected, ms", f"{seen.p99_ms:.1f}"),
            ("their messages acked / stored", f"{acked:,} / {stored:,}"),
            ("workers that serve in the end", str(sum("state" in worker for worker in back))),
        ],
    )
    bench.report.verdict(
        "one killed, recovery over N/R", recovery, "at most 1.15, no ticket dishonoured",
        ok=recovery <= 1.15 and crowd.log.dishonoured == 0,
    )  # fmt: skip
    bench.report.none("devices of the other worker that were cut", max(0, seen.lost - here))
    bench.report.none("acked messages that are not stored", max(0, acked - stored))


async def _stored(gateway: GatewayServer) -> int:
    client = await nats.connect(gateway.nats_url)
    state = (await client.jetstream().stream_info("EVENTS")).state
    await client.close()
    return state.messages


async def section_eight(bench: Bench) -> None:
    """16,000 connections and 20,000 messages a second on eight workers over one process."""
    sides = {"one process": 1, "eight workers": 8}
    tokens = [token for _, token in bench.credentials(_EIGHT_DEVICES, "many")]
    turns = {name: await _messages(bench, workers, tokens) for name, workers in sides.items()}
    bench.report.table(
        f"{_EIGHT_DEVICES:,} connections, {_EIGHT_PER_S:,} messages a second are offered",
        (
            "", "CPU us/msg, all processes", "without what is used idle", "stored a second",
            "turns missed", "cores used", "cores of the devices",
        ),
        [
            (
                name, f"{turn.cpu_us:.1f}", f"{turn.busy_us:.1f}", f"{turn.stored_per_s:,.0f}",
                f"{turn.missed_share:.0%}", f"{turn.cores:.2f}", f"{turn.device_cores:.2f}",
            )
            for name, turn in turns.items()
        ],
    )  # fmt: skip
    one, eight = turns.values()
    bench.report.at_most(
        "CPU a message, eight workers over one process", eight.cpu_us / one.cpu_us, 1.15
    )
    bench.report.none("connections that were lost", one.lost + eight.lost)
    off = await _admissions_off(bench, 8)
    bench.report.console.print(f"  admissions of eight workers: {1 + off:.3f} R")
    bench.report.at_most("admissions of eight workers, off R by", abs(off), 0.03)


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one side did with the messages that were offered."""

    cpu_us: float
    """Of all processes of the gateway, a message."""
    busy_us: float
    """The same without what they use when nothing is sent."""
    stored_per_s: float
    missed_share: float
    """Of the turns to send: the message before was not acknowledged yet."""
    cores: float
    device_cores: float
    lost: int


async def _messages(bench: Bench, workers: int, tokens: Sequence[str]) -> _Turn:
    server = (
        bench.gateway(**_ROOM_FOR_MANY)
        if workers == 1
        else bench.workers(workers, **_ROOM_FOR_MANY)
    )
    with server as gateway:
        devices = PreparedDevices(
            gateway.port, tokens, rate_per_s=_EIGHT_PER_S, processes=_DEVICE_PROCESSES
        )
        async with devices:
            await until(
                lambda: not _pending_facts(gateway),
                "the facts of presence are stored",
                _FACTS_STORED_S,
            )
            idle_cores = await _idle_share(gateway)
            await devices.begin()
            await asyncio.sleep(2.0)
            await devices.sent()
            # A busy server takes a while to answer: all clocks are read after its answer.
            stored = await _stored(gateway)
            began, cpu_s, device_cpu_s = perf_counter(), gateway.cpu_s(), _cpu_s(devices)
            await asyncio.sleep(bench.seconds)
            messages = await _stored(gateway) - stored
            took_s = perf_counter() - began
            used_s, device_used_s = gateway.cpu_s() - cpu_s, _cpu_s(devices) - device_cpu_s
            sent = await devices.sent()
    us = 1e6 / max(1, messages)
    return _Turn(
        cpu_us=used_s * us,
        busy_us=(used_s - idle_cores * took_s) * us,
        stored_per_s=messages / took_s,
        missed_share=sent.missed / max(1, sent.missed + sent.messages),
        cores=used_s / took_s,
        device_cores=device_used_s / took_s,
        lost=sent.lost,
    )


def _pending_facts(gateway: GatewayServer) -> float:
    """Facts of presence that wait, of all workers."""
    name = b"tidegate_presence_pending_facts"
    lines = gateway.metrics_page().splitlines()
    return sum(float(line.rpartition(b" ")[2]) for line in lines if line.startswith(name))


def _cpu_s(devices: PreparedDevices) -> float:
    return sum(map(proc.cpu_s, devices.pids))


async def _admissions_off(bench: Bench, workers: int) -> float:
    """By which part of R admissions were above it, in a storm without its first 2 s and last tenth.

    The devices knock all at once, and share two processors with nine processes. So they read their
    answers late in the first seconds, and come late for their slots, many at once.
    """
    count, rate = 6_000, 300
    expected_s = count / rate
    with bench.workers(workers, **fixed_rate(rate, 60)) as gateway:
        crowd = Crowd(bench.issuer, count, [gateway.port], "ticket", first_retry_ms=2_000)
        await crowd.run(120.0)
        await crowd.stop()
    return crowd.admitted_between(2.0, expected_s * 0.9) / rate - 1


async def section_idle(bench: Bench) -> None:
    """CPU and memory without devices, of one process and of workers. For information."""
    rows = []
    with bench.gateway() as one:
        share = await _idle_share(one)
        rows.append(("one process", f"{share:.1%}", f"{one.memory_bytes() / 2**20:.0f}", "-"))
    for workers in (2, 8):
        with bench.workers(workers) as gateway:
            share = await _idle_share(gateway)
            each = sorted(gateway.worker_bytes())
            supervisor = gateway.memory_bytes()
        rows.append(
            (
                f"{workers} workers",
                f"{share:.1%}",
                f"{each[len(each) // 2] / 2**20:.0f}",
                f"{supervisor / 2**20:.0f}",
            )
        )
    bench.report.table(
        "without devices",
        ("", "CPU of a core, all processes", "a gateway process, MiB", "the supervisor, MiB"),
        rows,
    )


SECTIONS: Final = {
    "costs": section_costs,
    "refuse": section_refuse,
    "killed": section_killed,
    "eight": section_eight,
    "idle": section_idle,
}


if __name__ == "__main__":
    main_of_sections("bench-workers", "Benchmarks of several workers.", SECTIONS)

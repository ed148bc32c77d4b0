"""Benchmarks of `tidegate route`: `make bench-route`, or one with ARGS="hundred".

NATS syncs each write before it acknowledges, as the embedded server does. NATS, route, receivers
and the watcher share this machine. Rates are taken from the moments at which the target's stream
stored the first message and the last.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from loadtest.benches.sections import main_of
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import fill, make_streams, plain
from loadtest.servers.gateway import RouteServer
from loadtest.servers.process import free_port
from loadtest.verdicts import Report
from loadtest.waiting import until_awaited

_CODES: Final = 100
_MATCHED_BY: Final = 3
_EVENTS: Final = 120_000
_EVENTS_ONE: Final = 200_000
_TURNS: Final = 3
_TIMEOUT_S: Final = 240.0
_RATE_PER_S: Final = 100
_WARM_UP_EVENTS: Final = 200
TARGET: Final = "DERIVED"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one route over a filled stream was measured with."""

    events_per_s: float
    own_us: float
    """CPU of route, an event."""
    nats_us: float
    memory_mib: float


def coded(number: int) -> bytes:
    """A small event that one of `_CODES` codes tells apart."""
    return b'{"code":"E%d","soc":%d,"voltage":12.345}' % (number % _CODES, number % 101)


def hundred_rules() -> str:
    """100 rules on one type, told apart by `data`; each event matches three of them."""
    return "".join(
        rule_text(
            f"r{number}",
            f"nats:derived.r{number}.{{device}}",
            {
                "type": ["battery.low"],
                "data": {
                    "code": [f"E{(number + more) % _CODES}" for more in range(_MATCHED_BY)],
                    "soc": [{"numeric": [">=", 0]}],
                },
            },
        )
        for number in range(100)
    )


def rule_text(name: str, to: str, when: Mapping[str, object], start: str = "start") -> str:
    """A rule of an events file."""
    return (
        f"[[rule]]\nname = '{name}'\nfrom = '{start}'\nto = '{to}'\nwhen = '{json.dumps(when)}'\n"
    )


@asynccontextmanager
async def filled(
    directory: Path, events: int, payload: Callable[[int], bytes], *, atomic: bool = True
) -> AsyncIterator[NatsServer]:
    """A nats-server that syncs each write, with so many events and an empty target."""
    server = NatsServer(directory / "nats")
    with server:
        await make_streams(server.url)
        await fill(server.url, 0, events, payload=payload)
        client = await nats.connect(server.url)
        config = StreamConfig(TARGET, subjects=["derived.>"], allow_atomic=atomic)
        await client.jetstream().add_stream(config)
        await client.close()
    # Filling a stream that syncs each write takes minutes.
    store = {"store_dir": str(directory / "nats" / "js"), "sync_interval": "always"}
    server.configure(jetstream=store)
    with server:
        yield server


async def turn_of(directory: Path, server: NatsServer, rules: str, events: int, each: int) -> Turn:
    """One process routes a filled stream to its end, each event to `each` targets."""
    client = await nats.connect(server.url)
    jetstream = client.jetstream()

    async def derived() -> int:
        return (await jetstream.stream_info(TARGET)).state.messages

    async def there(wanted: int) -> bool:
        return await derived() >= wanted

    with RouteServer(directory, nats_url=server.url, rules=rules) as route:
        await until_awaited(partial(there, 1), "the first message", _TIMEOUT_S, every_s=0.01)
        own_s, nats_s, first = route.cpu_s(), server.cpu_s(), await derived()
        wanted = events * each
        await until_awaited(partial(there, wanted), f"{wanted:,} messages", _TIMEOUT_S)
        share = events * (1 - first / wanted)
        own_us = (route.cpu_s() - own_s) / share * 1e6
        nats_us = (server.cpu_s() - nats_s) / share * 1e6
        memory = route.memory_bytes() / (1 << 20)
    seconds = await _between_first_and_last(client)
    stored = await derived()
    await client.close()
    assert stored == wanted, f"{stored:,} messages and not {wanted:,}"
    return Turn(events / seconds, own_us, nats_us, memory)


async def _between_first_and_last(client: Client) -> float:
    answer = await client.request(f"$JS.API.STREAM.INFO.{TARGET}", b"", timeout=5)
    state = json.loads(answer.data)["state"]
    first, last = (_moment(state[name]) for name in ("first_ts", "last_ts"))
    return last - first


def _moment(text: str) -> float:
    """Unix seconds of RFC 3339 with nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return seconds + float(f"0.{fraction or 0}")


async def _rate(
    directory: Path, report: Report, title: str, rules: str, *, atomic: bool, each: int,
    events: int, payload: Callable[[int], bytes],
) -> float:  # fmt: skip
    turns = []
    for number in range(_TURNS):
        where = directory / f"turn-{number}"
        async with filled(where, events, payload, atomic=atomic) as server:
            turns.append(await turn_of(where / "route", server, rules, events, each))
    rate = statistics.median(turn.events_per_s for turn in turns)
    report.table(
        title,
        ["", ""],
        [
            ["events a second, median", f"{rate:,.0f}"],
            ["by turn", ", ".join(f"{turn.events_per_s:,.0f}" for turn in turns)],
            ["route, us CPU an event", f"{statistics.median(t.own_us for t in turns):.1f}"],
            ["nats-server, us CPU an event", f"{statistics.median(t.nats_us for t in turns):.1f}"],
            ["memory of route, MiB", f"{max(turn.memory_mib for turn in turns):.0f}"],
        ],
    )
    return rate


async def hundred(directory: Path, report: Report, _seconds: float) -> None:
    """100 rules on one type, into a stream that allows atomic batches."""
    rate = await _rate(
        directory, report, "100 rules, each event matched by 3, atomic batches", hundred_rules(),
        atomic=True, each=_MATCHED_BY, events=_EVENTS, payload=coded,
    )  # fmt: skip
    report.verdict("events a second", rate, "at least 12,000", ok=rate >= 12_000)


async def plain_target(directory: Path, report: Report, _seconds: float) -> None:
    """The same into a stream that does not allow atomic batches: printed, not judged."""
    await _rate(
        directory, report, "100 rules, each event matched by 3, no atomic batches",
        hundred_rules(), atomic=False, each=_MATCHED_BY, events=_EVENTS // 4, payload=coded,
    )  # fmt: skip


async def one(directory: Path, report: Report, _seconds: float) -> None:
    """One rule whose filter the server applies."""
    rules = rule_text("one", "nats:derived.{device}", {"type": ["battery.low"]})
    rate = await _rate(
        directory, report, "One rule, filtered by the server", rules,
        atomic=True, each=1, events=_EVENTS_ONE, payload=plain,
    )  # fmt: skip
    report.verdict("events a second", rate, "at least 25,000", ok=rate >= 25_000)


async def latency(directory: Path, report: Report, seconds: float) -> None:
    """From the PubAck of an event to the receipt at its target, at 100 events a second."""
    rules = rule_text("low", "nats:derived.{device}", {"type": ["battery.low"]}, "now")
    waits = await _waits(directory, rules, seconds)
    _table_of_waits(report, "From ack to receipt at 100 events/s", [("", waits)])
    p99 = _p99(waits)
    report.verdict("p99, ms", p99, "at most 50", ok=p99 <= 50)


async def down(directory: Path, report: Report, seconds: float) -> None:
    """The same beside nothing, and beside a rule whose receiver is down, in turns."""
    low = {"type": ["battery.low"]}
    alone = rule_text("low", "nats:derived.{device}", low, "now")
    url = f"http://127.0.0.1:{free_port()}/"
    beside = alone + rule_text("down", url, low, "now") + "attempts = 1000\n"
    waits: dict[str, list[float]] = {"alone": [], "beside": []}
    ratios = []
    for number in range(_TURNS):
        for name, rules in (("alone", alone), ("beside", beside)):
            found = await _waits(directory / f"{name}-{number}", rules, seconds)
            waits[name] += found
        ratios.append(_p99(waits["beside"]) / _p99(waits["alone"]))
    _table_of_waits(report, "A receiver is down, 100 events/s", list(waits.items()))
    ratio = ratios[-1]
    report.verdict("p99 beside, of that alone", ratio, "at most 1.3", ok=ratio <= 1.3)


async def _waits(directory: Path, rules: str, seconds: float) -> list[float]:
    """Milliseconds from ack to receipt of each event."""
    acked: dict[str, float] = {}
    heard: dict[str, float] = {}

    async def receive(message: Msg) -> None:
        heard[(message.headers or {})["ce-id"]] = time.monotonic()

    async with filled(directory, 0, plain) as server:
        client = await nats.connect(server.url)
        await client.subscribe("derived.>", cb=receive)
        with RouteServer(directory / "route", nats_url=server.url, rules=rules) as route:

            async def running() -> bool:
                page = await asyncio.to_thread(route.status)
                return all(each["state"] == "running" for each in page.values())

            await until_awaited(running, "the rules run", 30.0)
            next_at = time.monotonic()
            for number in range(_WARM_UP_EVENTS + int(_RATE_PER_S * seconds)):
                await client.jetstream().publish(
                    f"events.default.veh-{number % 10}.battery.low",
                    plain(number),
                    headers={"ce-time": "2026-11-25T10:00:00Z", "ce-id": f"o:{number + 1}"},
                )
                acked[f"o:{number + 1}"] = time.monotonic()
                next_at += 1 / _RATE_PER_S
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))

            async def all_heard() -> bool:
                return len(heard) >= len(acked)

            await until_awaited(all_heard, "every event at the target", _TIMEOUT_S)
        await client.close()
    # The first requests of a process import and connect; what is measured is what comes after.
    return [(heard[each] - acked[each]) * 1000 for each in list(acked)[_WARM_UP_EVENTS:]]


def _p99(waits: Sequence[float]) -> float:
    return statistics.quantiles(waits, n=100)[98]


def _table_of_waits(report: Report, title: str, rows: list[tuple[str, list[float]]]) -> None:
    report.table(
        title,
        ["", "p50 ms", "p99 ms", "largest ms"],
        [
            [name, f"{statistics.median(waits):.1f}", f"{_p99(waits):.1f}", f"{max(waits):.1f}"]
            for name, waits in rows
        ],
    )


_SECTIONS: Final[dict[str, Callable[[Path, Report, float], Awaitable[None]]]] = {
    "hundred": hundred,
    "plain": plain_target,
    "one": one,
    "latency": latency,
    "down": down,
}


async def _run(names: Sequence[str], seconds: float) -> int:
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidegate-routes-") as directory:
        for name in names:
            await _SECTIONS[name](Path(directory) / name, report, seconds)
    return report.status()


if __name__ == "__main__":
    main_of("bench-route", "Benchmarks of `tidegate route`.", _SECTIONS, _run)

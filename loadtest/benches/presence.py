"""Presence facts: takeovers and a killed node, a node cut from Redis, a storm with and without."""

import asyncio
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from loadtest.benches.presence_facts import stored_facts, truth_of
from loadtest.benches.rig import Bench, fixed_rate
from loadtest.benches.sections import main_of_sections
from loadtest.benches.storms import BLIP
from loadtest.devices.crowd import Crowd
from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.limits import require_descriptors
from loadtest.devices.steady import SteadyDevices
from loadtest.servers.backends import NatsServer, RedisServer
from loadtest.servers.baselines import Relay
from loadtest.servers.gateway import GatewayServer
from loadtest.waiting import until_awaited

_TAKEOVERS: Final = 1_000
_STORM: Final = 10_000
_RATE: Final = 500
_WHOLE_S: Final = 10.0
"""`--seconds` of the whole size; fewer seconds make all counts smaller by that share."""
_WITHIN_S: Final = 15.0
_CUT_S: Final = 30.0
_TOLD_S: Final = 3.0
"""By then a node has stored its facts."""
_AFTERWARDS_S: Final = 10.0
"""How long the truth is watched after it was right: nothing late may change it."""
_SETTLE_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.25
_CALM_S: Final = 1.0
"""The storms are compared with each other, so the calm before them is shown only."""
_FIRST_S: Final = 1.0
"""In which all connections end at once, here and in the gateway: reported apart."""
_STORM_TIMEOUT_S: Final = 240.0
_SENDING: Final = 1_000
"""Devices that stay connected."""


@dataclass(frozen=True, slots=True)
class _Two:
    """Two nodes over one Redis and one nats-server; the second reaches Redis through a relay."""

    nats: NatsServer
    relay: Relay
    one: GatewayServer
    two: GatewayServer

    async def settle(self) -> None:
        """Wait until each node knows the other."""

        async def complete() -> bool:
            pages = [await asyncio.to_thread(each.status) for each in (self.one, self.two)]
            return all(page["admission"]["fleet"]["nodes"] == len(pages) for page in pages)

        await until_awaited(complete, "each node knows the other", _SETTLE_TIMEOUT_S)

    async def wrong(self, expected: Mapping[str, bool]) -> list[str]:
        """The devices whose last fact, by its fence, is not the truth."""
        truth = truth_of(await stored_facts(self.nats.url))
        return [
            name
            for name, online in expected.items()
            if (truth[name].online if name in truth else False) is not online
        ]

    async def right_after_s(self, expected: Mapping[str, bool], within_s: float) -> float:
        """Seconds until every device's last fact is the truth; infinity if it does not come."""
        began = monotonic()
        while monotonic() - began < within_s:
            if not await self.wrong(expected):
                return monotonic() - began
            await asyncio.sleep(_POLL_S)
        return float("inf")


@contextmanager
def _two(bench: Bench) -> Iterator[_Two]:
    with ExitStack() as stack:
        directory = bench.fresh_directory("presence")
        redis = stack.enter_context(RedisServer(directory / "redis"))
        nats = stack.enter_context(NatsServer(directory / "nats"))
        relay = stack.enter_context(Relay(directory / "relay", redis.port))
        urls = (redis.url, redis.url.replace(str(redis.port), str(relay.port)))
        nodes = [
            stack.enter_context(
                bench.gateway(
                    nats__urls=nats.url, stream__durability="stream", cluster__redis_url=url
                )
            )
            for url in urls
        ]
        yield _Two(nats, relay, *nodes)


def _scaled(bench: Bench, count: int) -> int:
    return max(20, int(count * min(1.0, bench.seconds / _WHOLE_S)))


async def section_takeovers(bench: Bench) -> None:
    """Devices move from one node to the other within a second; then that node is killed.

    Once at once, when it has told next to nothing of them, and once when it has told everything.
    """
    for told_s in (0.0, _TOLD_S):
        await _take_over_and_kill(bench, told_s)


async def _take_over_and_kill(bench: Bench, told_s: float) -> None:
    count = _scaled(bench, _TAKEOVERS)
    require_descriptors(4 * count)
    credentials = bench.credentials(count)
    names = [name for name, _token in credentials]
    with _two(bench) as nodes:
        await nodes.settle()
        async with Fleet.of_gateway(credentials, Meter(0)).connected(nodes.one.port) as first:
            began = monotonic()
            async with Fleet.of_gateway(credentials, Meter(0)).connected(nodes.two.port):
                moved_s = monotonic() - began
                await asyncio.sleep(told_s)
                await asyncio.to_thread(nodes.two.kill)
                back = Fleet.of_gateway(credentials[: count // 2], Meter(0))
                async with back.connected(nodes.one.port):
                    # The node may be killed before the other heard of its last takeovers: then
                    # the first connection lives, and the device is online.
                    online = {
                        name: place < count // 2 or not device.gone
                        for place, (name, device) in enumerate(zip(names, first, strict=True))
                    }
                    right_s = await nodes.right_after_s(online, 2 * _WITHIN_S)
                    await asyncio.sleep(_AFTERWARDS_S)
                    wrong = await nodes.wrong(online)
        facts = await stored_facts(nodes.nats.url)
    taken_over = sum(fact.cause == "taken_over" for fact in facts)
    bench.report.table(
        f"{count:,} takeovers in {moved_s:.2f} s, kill -9 {told_s:.0f} s later; half of the devices"
        " come back",
        ("facts stored", "taken_over", "truth after the kill, s", "wrong 10 s later"),
        [(f"{len(facts):,}", f"{taken_over:,}", f"{right_s:.1f}", str(len(wrong)))],
    )
    bench.report.at_most("dead node's devices offline within", right_s, _WITHIN_S, unit=" s")
    bench.report.none("devices whose last fact is wrong, takeovers and kill", len(wrong))


async def section_cut(bench: Bench) -> None:
    """A node is cut from Redis for 30 s and comes back; a tenth of its devices move meanwhile."""
    count = _scaled(bench, _TAKEOVERS)
    require_descriptors(4 * count)
    credentials = bench.credentials(count)
    moving = credentials[: count // 10]
    with _two(bench) as nodes:
        await nodes.settle()
        async with Fleet.of_gateway(credentials, Meter(0)).connected(nodes.two.port):
            online = {name: True for name, _token in credentials}
            before_s = await nodes.right_after_s(online, _WITHIN_S)
            await asyncio.to_thread(nodes.relay.kill)
            began = monotonic()
            await asyncio.sleep(_CUT_S / 2)
            async with Fleet.of_gateway(moving, Meter(0)).connected(nodes.one.port):
                await asyncio.sleep(max(0.0, began + _CUT_S - monotonic()))
                await asyncio.to_thread(nodes.relay.start)
                right_s = await nodes.right_after_s(online, 2 * _WITHIN_S)
                await asyncio.sleep(_AFTERWARDS_S)
                wrong = await nodes.wrong(online)
        facts = await stored_facts(nodes.nats.url)
    node_lost = sum(fact.cause == "node_lost" for fact in facts)
    bench.report.table(
        f"{count:,} devices on a node that is cut from Redis for {_CUT_S:.0f} s",
        ("online told after, s", "node_lost", "truth after the return, s", "wrong 10 s later"),
        [(f"{before_s:.1f}", f"{node_lost:,}", f"{right_s:.1f}", str(len(wrong)))],
    )
    bench.report.at_most("truth after the return to Redis", right_s, _WITHIN_S, unit=" s")
    bench.report.none("devices whose last fact is wrong, cut from Redis", len(wrong))


@dataclass(slots=True)
class _Side:
    """A gateway with presence, or without, and what its storms have shown."""

    name: str
    gateway: GatewayServer
    p99_ms: list[float] = field(default_factory=list)
    """Ack p99 of the connected in each storm, without its first second."""
    cut_p99_ms: list[float] = field(default_factory=list)
    """The same in the first second."""
    calm_p99_ms: list[float] = field(default_factory=list)
    """The same before each cut."""
    recovery: list[float] = field(default_factory=list)


_ON: Final = "on"
_SIDES: Final = (_ON, "off", "off, control")
"""The control is the other side without presence: how far two equal sides are apart."""
_TURNS: Final = 3
"""Storms of each side."""


async def section_storm(bench: Bench) -> None:
    """The storm of 10,000 with presence and without, in turns; how late facts are stored.

    All gateways live as long as the section. In a turn the crowd of one connects, is cut and comes
    back; the others have no connection, or three times as many descriptors were needed. The order
    rotates, so that no side always comes first.
    """
    count = _scaled(bench, _STORM)
    require_descriptors(count + 2 * _SENDING)
    with ExitStack() as stack:
        sides = [_side(bench, stack, name) for name in _SIDES]
        for turn in range(_TURNS):
            for side in (*sides[turn % len(sides) :], *sides[: turn % len(sides)]):
                await _cut_and_storm(bench, side, count)
        facts = await stored_facts(sides[0].gateway.nats_url_of("operators"))
    _report_storms(bench, sides, count)
    lags = [fact.lag_s for fact in facts]
    cuts = statistics.quantiles(lags, n=100)
    bench.report.console.print(
        f"  {len(lags):,} facts; lag p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s\n"
    )
    bench.report.at_most("lag of facts in the storm", max(lags), 5.0, unit=" s")


def _side(bench: Bench, stack: ExitStack, name: str) -> _Side:
    settings = {**fixed_rate(_RATE, 100), **BLIP, "presence__enabled": name == _ON}
    return _Side(name, stack.enter_context(bench.gateway(**settings)))


def _crowd(bench: Bench, gateway: GatewayServer, count: int) -> Crowd:
    return Crowd(bench.issuer, count, [gateway.port], "ticket", first_retry_ms=count)


async def _cut_and_storm(bench: Bench, side: _Side, count: int) -> None:
    """Cut a crowd while 1,000 other devices go on sending, and wait until all are back."""
    crowd, coming = (_crowd(bench, side.gateway, count) for _ in range(2))
    await crowd.run(_STORM_TIMEOUT_S)
    async with SteadyDevices(
        side.gateway.port,
        # Never the same twice: a device that begins its outbox again sends what is stored already.
        bench.credentials(_SENDING, f"calm-{len(side.p99_ms)}"),
        rate_per_s=2 * _SENDING,
        connect_per_s=0.8 * _RATE,
    ) as steady:
        await asyncio.sleep(_CALM_S)
        await steady.seen()
        await asyncio.sleep(_CALM_S)
        side.calm_p99_ms.append((await steady.seen()).p99_ms)
        await crowd.stop()
        storming = asyncio.create_task(coming.run(_STORM_TIMEOUT_S))
        await asyncio.sleep(_FIRST_S)
        side.cut_p99_ms.append((await steady.seen()).p99_ms)
        complete = await storming
        side.p99_ms.append((await steady.seen()).p99_ms)
    await coming.stop()
    side.recovery.append(coming.recovery_over(count / _RATE) if complete else float("inf"))
    bench.report.console.print(f"  presence {side.name}: ack p99 {side.p99_ms[-1]:.1f} ms")


def _report_storms(bench: Bench, sides: Sequence[_Side], count: int) -> None:
    bench.report.table(
        f"{count:,} devices cut at once, R = {_RATE}/s, {_SENDING:,} stay and send 2 msg/s each",
        ("presence", "recovery / (N/R)", "ack p99 ms: calm", "cut", "storm", "storm, median"),
        [
            (
                side.name,
                f"{statistics.median(side.recovery):.3f}",
                f"{statistics.median(side.calm_p99_ms):.1f}",
                f"{statistics.median(side.cut_p99_ms):.1f}",
                " ".join(f"{each:.1f}" for each in side.p99_ms),
                f"{statistics.median(side.p99_ms):.1f}",
            )
            for side in sides
        ],
    )
    on, off, control = (statistics.median(side.p99_ms) for side in sides)
    without = statistics.median([each for side in sides[1:] for each in side.p99_ms])
    bench.report.console.print(f"  ack p99, control / off: [bold]{control / off:.2f}[/]\n")
    bench.report.at_most("ack p99 in the storm, presence on / off, medians", on / without, 1.3)


async def section_presence(bench: Bench) -> None:
    """All three."""
    for section in (section_takeovers, section_cut, section_storm):
        await section(bench)


if __name__ == "__main__":
    main_of_sections(
        "presence",
        "The parts of `make bench-talk ARGS=presence`, one by one.",
        {"takeovers": section_takeovers, "cut": section_cut, "storm": section_storm},
    )

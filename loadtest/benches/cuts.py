"""The second in which thousands of sockets end at once, seen by the devices that stay."""

import asyncio
import statistics
from dataclasses import dataclass
from typing import Final

from loadtest.benches.rig import Bench, Settings, fixed_rate
from loadtest.devices.held import HeldConnections
from loadtest.devices.knockers import Knockers
from loadtest.devices.limits import require_descriptors
from loadtest.devices.steady import Seen, SteadyDevices

_CUT_S: Final = 1.0
_CALM_S: Final = 5.0
_COUNT: Final = 10_000
_STEADY: Final = 1_000
_RATE: Final = 500
_CUTS: Final = 3
_FILL_RATE: Final = 8_000
"""R while the devices connect for the first time."""
_SETTINGS: Final[Settings] = {
    **fixed_rate(_RATE, 100),
    "session__first_retry_min_ms": 2_000,
    "drain__rate_per_s": 100_000,  # the stop is not measured
}


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut: what the devices that stay saw in the calm before it, and in its second."""

    calm: Seen
    second: Seen
    closed_s: float
    """How long it took to close the sockets."""
    knocks: int


async def section_cut(bench: Bench) -> None:
    """10,000 of 11,000 sockets end at once; the other 1,000 devices send 2 messages a second each.

    The devices that were cut knock from the first moment on, as they do in a blip. Those that are
    cut, those that stay and those that knock are processes of their own. The figures are the
    medians of three cuts, each of its own gateway.
    """
    require_descriptors(_COUNT + 2_000)
    cuts = [await _cut(bench) for _ in range(_CUTS)]
    bench.report.table(
        f"{_COUNT:,} sockets end at once, {_STEADY:,} devices stay and send 2 msg/s each",
        (
            "cut",
            "calm ack p50 / p99 ms",
            "its second: ack p50 / p99 ms",
            "acks in it",
            "lost",
            "closed in s",
        ),
        [
            (
                str(number + 1),
                f"{cut.calm.p50_ms:.1f} / {cut.calm.p99_ms:.1f}",
                f"{cut.second.p50_ms:.1f} / {cut.second.p99_ms:.1f}",
                str(cut.second.acked),
                str(cut.second.lost),
                f"{cut.closed_s:.2f}",
                str(cut.knocks),
            )
            for number, cut in enumerate(cuts)
        ],
    )
    p99_ms = statistics.median(cut.second.p99_ms for cut in cuts)
    calm_ms = statistics.median(cut.calm.p99_ms for cut in cuts)
    bench.report.at_most("ack p99 in the second of the cut", p99_ms, 50, unit=" ms")
    bench.report.at_most("the same over that of the calm", p99_ms / calm_ms, 4)
    lost = sum(cut.second.lost for cut in cuts)
    bench.report.none("connections lost of those that stay", lost)


async def _cut(bench: Bench) -> Cut:
    with bench.gateway(**_SETTINGS) as gateway:
        fast = {"rate_per_s": _FILL_RATE, "rate_floor_per_s": _FILL_RATE, "burst": _FILL_RATE}
        gateway.order("steer", **fast, for_s=600)
        # The names are those of a crowd whose devices have tickets.
        tokens = bench.credentials(_COUNT, "ticket")
        async with (
            SteadyDevices(
                gateway.port,
                bench.credentials(_STEADY, "calm"),
                rate_per_s=2 * _STEADY,
                connect_per_s=_FILL_RATE,
            ) as steady,
            Knockers(gateway.port, tokens, first_retry_ms=_COUNT) as knockers,
            HeldConnections(gateway.port, tokens, connect_per_s=_FILL_RATE) as held,
        ):
            gateway.order("unsteer")
            await asyncio.sleep(_CUT_S)
            await steady.seen()
            await asyncio.sleep(_CALM_S)
            calm = await steady.seen()
            await knockers.begin()
            await steady.seen()
            cutting = asyncio.create_task(held.cut())
            await asyncio.sleep(_CUT_S)
            second = await steady.seen()
            knocks = await knockers.end()
            closed_s = await cutting
    return Cut(calm, second, closed_s, knocks)

"""What traces cost a message: the share of sampled messages, in turns in one run.

All sides are this tree. A side with traces exports to a collector in the process of the load
generator, so the cost of encoding and sending spans is in the figure, and that of taking them is
not. A change is the median over the turns of the difference to the same turn of the side without
traces. What that side and the control differ by is noise, and is allowed.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from loadtest.benches import figures
from loadtest.benches.message_costs import cost_of_messages
from loadtest.benches.rig import COLD, Bench
from loadtest.servers.otlp import TraceCollector, collecting

_OFF: Final = "off"
_CONTROL: Final = "control"


class TracedSide(NamedTuple):
    """A side that exports traces."""

    name: str
    ratio: float
    allowed_us: float
    """CPU a message that it may cost more than no traces."""


SIDES: Final = (TracedSide("ratio 0", 0.0, 0.1), TracedSide("ratio 0.01", 0.01, 0.3))


def settings_of(side: TracedSide, collector: TraceCollector) -> dict[str, object]:
    """The settings of a side; the bound of the rate must not hide what the ratio costs."""
    return {
        "trace__endpoint": collector.endpoint,
        "trace__sample_ratio": side.ratio,
        "trace__sampled_per_s": 100_000,
    }


async def measure(bench: Bench, turns: int, messages: int, settings: Mapping[str, str]) -> None:
    """Measure all sides in turns, and judge.

    Args:
        bench: the run.
        turns: of each side.
        messages: of a turn.
        settings: of all gateways.

    Raises:
        TargetError: a gateway did not start, or did not answer as it should.
    """
    common = {"stream__durability": "stream", **COLD, **settings}
    costs: dict[str, list[float]] = {name: [] for name in _names()}
    with collecting() as collector:
        sides: dict[str, Mapping[str, object]] = {_OFF: {}, _CONTROL: {}}
        sides |= {side.name: settings_of(side, collector) for side in SIDES}
        order = list(sides)
        for turn in range(turns):
            first = turn % len(order)
            for name in (*order[first:], *order[:first]):
                with bench.gateway(None, None, **{**common, **sides[name]}) as gateway:
                    found = await cost_of_messages(bench, gateway, messages)
                costs[name].append(found[figures.MESSAGE])
            bench.report.console.print(f"  turn {turn + 1} of {turns}")
        judge(bench, costs, turns)
        spans = len(collector.named("tidegate message"))
    bench.report.console.print(f"  {spans:,} spans of messages were exported")
    bench.report.verdict("spans of messages", spans, "more than 0", ok=spans > 0)


def _names() -> Sequence[str]:
    return (_OFF, _CONTROL, *(side.name for side in SIDES))


def changes(costs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each side but the first: the median difference to that one, turn by turn."""
    off = costs[_OFF]
    return {
        name: statistics.median(mine - other for mine, other in zip(costs[name], off, strict=True))
        for name in _names()[1:]
    }


def judge(bench: Bench, costs: Mapping[str, Sequence[float]], turns: int) -> None:
    """Print the medians and the changes, and a verdict on each side with traces."""
    found = changes(costs)
    rows = [
        (name, f"{statistics.median(costs[name]):.2f}", f"{found.get(name, 0.0):+.2f}")
        for name in _names()
    ]
    columns = ("traces", "a message", "change")
    bench.report.table(f"CPU, microseconds, medians of {turns} turns", columns, rows)
    noise_us = abs(found[_CONTROL])
    for side in SIDES:
        wanted = f"at most {side.allowed_us:+.1f} us, and the {noise_us:.2f} us of the control"
        change = found[side.name]
        ok = change <= side.allowed_us + noise_us
        bench.report.verdict(f"{side.name}, change in us", change, wanted, ok=ok)

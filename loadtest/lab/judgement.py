"""Judges the outcome of a storm by its objectives. Pure."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtest.lab.machine import remarks
from loadtest.lab.observations import Observations, percentile
from loadtest.lab.scenario import Scenario
from loadtest.simulator import StormResult


@dataclass(slots=True)
class Outcome:
    """The outcome of one storm. Times in seconds of the observations' clock."""

    scenario: Scenario
    policy: str
    observed: Observations
    calm: tuple[float, float]
    fault_at: float
    recovers_from: float
    """When there was a gateway to recover to: the time of the fault, unless all were down."""
    back_at: float
    affected: int
    """Devices that lost their connection because of the fault."""
    all_back: bool
    """Whether every device was back in time."""
    dishonoured: int
    acked: int
    stored: dict[str, Any] | None
    """What the checker found; None if it could not read the stream."""

    @property
    def honoured(self) -> int:
        """Tickets that were honoured after the fault."""
        return len(self.observed.lateness)

    @property
    def recovery_s(self) -> float:
        """From `recovers_from` to the last welcome; infinite if a device was left out."""
        if not self.all_back:
            return float("inf")
        return max(0.0, max(self.observed.admissions, default=0.0) - self.recovers_from)

    @property
    def caught_up_s(self) -> float:
        """From the fault until every device was in and the outboxes were empty again."""
        return self.back_at - self.fault_at if self.all_back else float("inf")

    @property
    def recovery_over_ideal(self) -> float:
        """The recovery over N/R, where N is the devices that lost their connection."""
        ideal_s = self.affected / self.scenario.rate_per_s
        return self.recovery_s / ideal_s if ideal_s else 0.0

    @property
    def knocks_a_device(self) -> float:
        knocks = sum(time >= self.fault_at for time in self.observed.knocks)
        return knocks / self.affected if self.affected else 0.0

    @property
    def refused(self) -> int:
        return sum(time >= self.fault_at for time, _ in self.observed.refusals)

    @property
    def disconnects(self) -> int:
        """Sessions that ended, beyond those that the fault itself ends."""
        cuts = sum(time >= self.fault_at for time in self.observed.cuts)
        return max(0, cuts - self.affected)

    @property
    def ack_p99_calm_s(self) -> float:
        return self.observed.ack_p99_s(*self.calm)

    @property
    def ack_p99_storm_s(self) -> float:
        return self.observed.ack_p99_s(self.fault_at, self.back_at)

    @property
    def memory_mib(self) -> float:
        return max((sample.memory for sample in self.observed.samples), default=0) / 2**20

    def damage(self, kind: str) -> int | None:
        """How many messages are lost, duplicated, reordered or corrupted; None if not read."""
        return int(self.stored[kind]["count"]) if self.stored is not None else None


@dataclass(slots=True)
class Verdict:
    """One objective."""

    name: str
    wanted: float
    measured: float | None
    """None if it could not be measured, on servers that the lab did not start."""

    @property
    def word(self) -> str:
        """Reached, missed or not judged."""
        if self.measured is None:
            return "not judged"
        return "reached" if self.measured <= self.wanted else "missed"


_SPREAD_S: Final = 2.0
"""`session.first_retry_min_ms` of a gateway by default: no storm is over sooner."""
_COLOURS: Final = {"reached": "green", "missed": "red", "not judged": "yellow"}
_NAMES: Final = {
    "recovery_over_ideal": "recovery over N/R",
    "knocks_a_device": "knocks a device",
    "dishonoured": "tickets dishonoured",
    "disconnects": "sessions lost beyond the fault",
    "refused": "refusals",
    "lost": "acknowledged messages lost",
    "duplicated": "messages stored twice",
    "ack_p99_over_calm": "ack p99, storm over calm",
    "gateway_memory_mib": "gateway memory, MiB",
    "over_without_forgers": "recovery over that without forgers",
}


@dataclass(slots=True)
class Judgement:
    """All objectives of a scenario."""

    outcome: Outcome
    verdicts: list[Verdict] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """What makes the verdicts doubtful, one sentence each."""

    @property
    def passed(self) -> bool:
        """Whether every device is back and no objective was missed."""
        return self.outcome.all_back and all(verdict.word != "missed" for verdict in self.verdicts)

    def show(
        self, console: Console, outcomes: Sequence[Outcome], simulated: Sequence[StormResult | None]
    ) -> None:
        """Print the objectives beside the measurements."""
        table = Table(title=self.outcome.scenario.title, title_justify="left")
        for name in ("objective", "wanted", "measured", ""):
            table.add_column(name, justify="left" if name == "objective" else "right")
        for verdict in self.verdicts:
            colour = _COLOURS[verdict.word]
            mark = f"[{colour}]{verdict.word}[/]"
            table.add_row(verdict.name, _figure(verdict.wanted), _figure(verdict.measured), mark)
        console.print(table)
        if any(verdict.word == "not judged" for verdict in self.verdicts):
            console.print("give --nats-url and --ops-url to have everything judged")
        table = Table(title="what happened", title_justify="left")
        table.add_column("")
        for outcome, virtual in zip(outcomes, simulated, strict=True):
            table.add_column(outcome.policy, justify="right")
            if virtual is not None:
                table.add_column(f"{outcome.policy}, simulated", justify="right")
        for row in rows(outcomes, simulated):
            table.add_row(*row)
        console.print(table)
        for doubt in self.doubts:
            console.print(f"[yellow]{doubt}[/]")
        word = "[green bold]passed[/]" if self.passed else "[red bold]failed[/]"
        console.print(f"{self.outcome.scenario.title}: {word}")


def rows(
    outcomes: Sequence[Outcome], simulated: Sequence[StormResult | None]
) -> list[tuple[str, ...]]:
    """The figures of each storm, beside those of the same storm in virtual time, if any."""
    names = (
        "all back, s", "outboxes empty again, s", "over N/R", "knocks a device", "refused",
        "tickets honoured",
        "tickets dishonoured", "wait p50 / p99, s", "ack p99 calm / storm, ms",
        "sessions lost beyond the fault", "acknowledged / stored", "lost / duplicated",
        "gateway memory, MiB",
    )  # fmt: skip
    columns = []
    for outcome, virtual in zip(outcomes, simulated, strict=True):
        waits = outcome.observed.waits
        stored = outcome.stored
        columns.append(
            (
                f"{outcome.recovery_s:.1f}",
                f"{outcome.caught_up_s:.1f}",
                f"{outcome.recovery_over_ideal:.3f}" if outcome.affected else "-",
                f"{outcome.knocks_a_device:.2f}" if outcome.affected else "-",
                f"{outcome.refused:,}",
                f"{outcome.honoured:,}",
                f"{outcome.dishonoured:,}",
                f"{percentile(waits, 50):.1f} / {percentile(waits, 99):.1f}",
                f"{outcome.ack_p99_calm_s * 1e3:.0f} / {outcome.ack_p99_storm_s * 1e3:.0f}",
                f"{outcome.disconnects:,}",
                f"{outcome.acked:,} / " + (f"{stored['stored']:,}" if stored else "-"),
                f"{outcome.damage('lost')} / {outcome.damage('duplicated')}" if stored else "-",
                f"{outcome.memory_mib:.0f}" if outcome.observed.samples else "-",
            )
        )
        if virtual is not None:
            columns.append(
                (
                    f"{virtual.recovery_s:.1f}",
                    "-",
                    f"{virtual.recovery_s / virtual.ideal_s:.3f}",
                    f"{virtual.knocks_a_device:.2f}",
                    f"{virtual.knocks - virtual.admitted:,}",
                    "-", f"{virtual.dishonoured:,}",
                    f"{virtual.wait_s(50):.1f} / {virtual.wait_s(99):.1f}",
                    "-", "-", "-", "-", "-",
                )
            )  # fmt: skip
    return [
        (name, *(column[number] for column in columns)) for number, name in enumerate(names)
    ]  # fmt: skip


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:,.3f}"


def judge(
    outcome: Outcome, baseline: Outcome | None, *, cores: int = os.cpu_count() or 1
) -> Judgement:
    """Judge an outcome by its scenario's objectives.

    Args:
        outcome: of the storm.
        baseline: the same storm without forgers, if there were any.
        cores: of the machine it ran on.
    """
    calm = outcome.ack_p99_calm_s
    measured: dict[str, float | None] = {
        "recovery_over_ideal": outcome.recovery_over_ideal,
        "knocks_a_device": outcome.knocks_a_device,
        "dishonoured": outcome.dishonoured,
        "disconnects": outcome.disconnects,
        "refused": outcome.refused,
        "lost": outcome.damage("lost"),
        "duplicated": outcome.damage("duplicated"),
        "ack_p99_over_calm": outcome.ack_p99_storm_s / calm if calm else None,
        "gateway_memory_mib": outcome.memory_mib or None,
        "over_without_forgers": (
            outcome.recovery_s / baseline.recovery_s if baseline is not None else None
        ),
    }
    wanted = outcome.scenario.objectives.model_dump(exclude_none=True)
    verdicts = [Verdict(_NAMES[key], value, measured[key]) for key, value in wanted.items()]
    observed = outcome.observed
    doubts = remarks(observed.machine, outcome.fault_at, outcome.back_at, cores=cores)
    ideal_s = outcome.affected / outcome.scenario.rate_per_s
    if "recovery_over_ideal" in wanted and ideal_s < _SPREAD_S:
        doubts.append(
            f"the storm is small: N/R is {ideal_s:.1f} s, and first knocks alone are spread over "
            f"{_SPREAD_S:g} s; take more devices or a smaller R"
        )
    return Judgement(outcome, verdicts, doubts)

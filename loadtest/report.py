"""The report of a storm: one HTML file that needs nothing else, and a PNG for the chat."""

import base64
import html
import io
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, and none may be there

from matplotlib import pyplot as plt  # after the choice of backend
from matplotlib.axes import Axes  # as above
from matplotlib.figure import Figure  # as above

from loadtest.judgement import Judgement, Outcome, rows  # as above
from loadtest.observations import Sample, percentile  # as above
from loadtest.simulator import StormResult  # as above

_COLOURS: Final = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#775a9e", "#5f6a72")
_BEFORE_S: Final = 5
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; color: #1c2429;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: right; padding: .25rem .9rem; border-bottom: 1px solid #dde3e7; }
th:first-child, td:first-child { text-align: left; }
.passed { color: #2b7a4b; } .failed { color: #b3263a; }
img { max-width: 100%; }
"""


class _Storm:
    """An outcome with its times counted from the fault."""

    def __init__(self, outcome: Outcome, colour: str) -> None:
        self.outcome = outcome
        self.colour = colour
        self._at = outcome.fault_at
        self.end = int(outcome.back_at - self._at + outcome.scenario.after_s) + 1

    @property
    def label(self) -> str:
        return self.outcome.policy

    def counts(self, times: Sequence[float]) -> tuple[list[int], list[int]]:
        """Events a second, from a little before the fault to the end."""
        found = Counter(int(time - self._at) if time >= self._at else -1 for time in times)
        before = Counter(int(time - self._at) - 1 for time in times if time < self._at)
        seconds = list(range(-_BEFORE_S, self.end))
        return seconds, [before[s] if s < 0 else found[s] for s in seconds]

    def waiting(self) -> tuple[list[int], list[int]]:
        """Devices without a session."""
        seconds, admitted = self.counts(self.outcome.observed.admissions)
        _, lost = self.counts(self.outcome.observed.cuts)
        out, outside = 0, []
        for second, came, went in zip(seconds, admitted, lost, strict=True):
            if second >= 0:
                out = max(0, out + went - came)
            outside.append(out)
        return seconds, outside

    def latency_ms(self) -> tuple[list[int], list[float]]:
        """p99 of acknowledgements a second."""
        seconds, values = [], []
        for second in range(-_BEFORE_S, self.end):
            found = self.outcome.observed.acks.get(int(self._at) + second, ())
            if found:
                seconds.append(second)
                values.append(percentile(found, 99) * 1e3)
        return seconds, values

    @property
    def sampled(self) -> list[Sample]:
        """The gateways' own figures, from a little before the fault."""
        samples = self.outcome.observed.samples
        return [s for s in samples if -_BEFORE_S <= s.at - self._at <= self.end - 1]

    def since(self, at: float) -> float:
        return at - self._at

    def samples(self, read: Callable[[Sample], float]) -> tuple[list[float], list[float]]:
        """One of those figures, and when."""
        return [self.since(s.at) for s in self.sampled], [read(s) for s in self.sampled]

    def cpu(self) -> tuple[list[float], list[float]]:
        """Cores in use, between samples."""
        pairs = list(itertools.pairwise(self.sampled))
        times = [self.since(later.at) for _, later in pairs]
        return times, [
            max(0.0, (later.cpu_s - first.cpu_s) / max(0.1, later.at - first.at))
            for first, later in pairs
        ]


def _prepare(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_ylabel(unit, fontsize=8)
    axes.set_xlabel("seconds after the fault", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)


def _draw(storms: Sequence[_Storm], simulated: Sequence[StormResult | None]) -> Figure:
    figure, grid = plt.subplots(4, 2, figsize=(12, 14), layout="constrained")
    knocks, admissions, refusals, waiting, latency, rate, machine, waits = grid.flat
    for storm in storms:
        observed, style = storm.outcome.observed, {"color": storm.colour, "linewidth": 1.4}
        knocks.plot(*storm.counts(observed.knocks), label=storm.label, **style)
        admissions.plot(*storm.counts(observed.admissions), label=storm.label, **style)
        refused = [time for time, _reason in observed.refusals]
        refusals.plot(*storm.counts(refused), label=storm.label, **style)
        waiting.plot(*storm.waiting(), label=storm.label, **style)
        latency.plot(*storm.latency_ms(), label=storm.label, **style)
        rate.step(*storm.samples(lambda s: s.rate_per_s), where="post", label=storm.label, **style)
        held = [s for s in storm.sampled if s.limited_by != "ceiling"]
        rate.plot(
            [storm.since(s.at) for s in held],
            [s.rate_per_s for s in held],
            "v",
            markersize=4,
            color=storm.colour,
        )
        named = ""
        for sample in held:
            if sample.limited_by != named:
                named = sample.limited_by
                place = (storm.since(sample.at), sample.rate_per_s)
                rate.annotate(named, place, fontsize=7, color=storm.colour)
        machine.plot(*storm.cpu(), label=f"{storm.label}, cores", **style)
        found = sorted(observed.waits)
        if found:
            shares = [(place + 1) / len(found) for place in range(len(found))]
            waits.plot(found, shares, label=storm.label, **style)
    for storm, virtual in zip(storms, simulated, strict=True):
        if virtual is not None and len(virtual.waits):
            found = sorted(virtual.waits)
            shares = [(place + 1) / len(found) for place in range(len(found))]
            waits.plot(
                found, shares, label=f"{storm.label}, simulated", color=storm.colour,
                linewidth=1.0, linestyle="--",
            )  # fmt: skip
    r = storms[0].outcome.scenario.rate_per_s
    admissions.axhline(r, color="#888888", linewidth=0.8, linestyle="--")
    _prepare(knocks, "Arrivals: knocks", "a second")
    _prepare(admissions, f"Admissions (dashed: R = {r:g}/s)", "a second")
    _prepare(refusals, "Refusals", "a second")
    _prepare(waiting, "Devices without a session", "devices")
    _prepare(latency, "Ack latency, p99", "ms")
    _prepare(rate, "R of the gateways (triangles: held down by a signal)", "a second")
    _prepare(machine, "Gateways and their NATS: CPU; memory dotted", "cores")
    memory = machine.twinx()
    for storm in storms:
        memory.plot(
            *storm.samples(lambda s: s.memory / 2**20), color=storm.colour, linewidth=1.2,
            linestyle=":",
        )  # fmt: skip
    memory.set_ylabel("MiB, the largest", fontsize=8)
    memory.tick_params(labelsize=8)
    memory.set_ylim(bottom=0)
    memory.spines[["top"]].set_visible(False)
    _prepare(waits, "Waiting time: share of devices back within", "share")
    waits.set_xlabel("seconds after losing the connection", fontsize=8)
    waits.set_ylim(0, 1.02)
    for axes in (knocks, waits):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)
    return figure


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in body)}</table>"


def write_report(
    path: Path,
    judgement: Judgement,
    outcomes: Sequence[Outcome],
    simulated: Sequence[StormResult | None],
) -> None:
    """Write `path` and, beside it, the picture as a PNG.

    Raises:
        OSError: it cannot be written there.
    """
    storms = [
        _Storm(outcome, _COLOURS[number % len(_COLOURS)]) for number, outcome in enumerate(outcomes)
    ]
    figure = _draw(storms, simulated)
    scenario = judgement.outcome.scenario
    word = "passed" if judgement.passed else "failed"
    figure.suptitle(
        f"{scenario.title}: {scenario.devices:,} devices, R = {scenario.rate_per_s:g}/s: {word}",
        fontweight="bold",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=110)
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    plt.close(figure)
    encoded = base64.b64encode(picture.getvalue()).decode()
    verdicts = [
        (v.name, f"{v.wanted:g}", "-" if v.measured is None else f"{v.measured:.4g}", v.word)
        for v in judgement.verdicts
    ]  # fmt: skip
    head = [""]
    for outcome, virtual in zip(outcomes, simulated, strict=True):
        head.append(outcome.policy)
        if virtual is not None:
            head.append(f"{outcome.policy}, simulated")
    settings = [(key, str(value)) for key, value in scenario.model_dump().items()]
    path.write_text(
        f"<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>Tidegate storm: {html.escape(scenario.title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(scenario.title)}</h1>"
        f"<p class='{word}'><b>{word}</b></p>"
        f"<h2>Objectives</h2>{_table(('objective', 'at most', 'measured', ''), verdicts)}"
        f"<h2>What happened</h2>{_table(head, rows(outcomes, simulated))}"
        f"<h2>Second by second</h2>"
        f"<img alt='arrivals, admissions, refusals, waiting, latency, rate, machine, waits' "
        f"src='data:image/svg+xml;base64,{encoded}'>"
        f"<h2>Scenario</h2>{_table(('key', 'value'), settings)}</html>"
    )

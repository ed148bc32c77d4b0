"""The report of a storm: one HTML file without references to others, and a PNG for a chat."""

import base64
import html
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")  # it needs no screen

from matplotlib import pyplot as plt  # after the choice of backend
from matplotlib.axes import Axes  # as above
from matplotlib.figure import Figure  # as above

from loadtest.lab.judgement import Judgement, Outcome, rows  # as above
from loadtest.lab.observations import Sample, percentile  # as above
from loadtest.simulator import StormResult  # as above

_COLOURS: Final = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#775a9e", "#5f6a72")
_BEFORE_S: Final = 5
_SHEET_INCHES: Final = (12.0, 14.0)
_PANEL_INCHES: Final = (5.2, 3.2)
# Fixed margins: a layout engine would draw each figure twice to find them.
_SHEET_MARGINS: Final[Mapping[str, float]] = {
    "left": 0.07, "right": 0.98, "bottom": 0.04, "top": 0.95, "hspace": 0.42, "wspace": 0.2,
}  # fmt: skip
_PANEL_MARGINS: Final[Mapping[str, float]] = {
    "left": 0.13, "right": 0.98, "bottom": 0.16, "top": 0.9,
}  # fmt: skip
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 72rem; color: #1c2429;
       padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin-bottom: 0; line-height: 1.25; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: right; padding: .25rem .9rem; border-bottom: 1px solid #dde3e7; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.passed, .reached { color: #2b7a4b; } .failed, .missed { color: #b3263a; }
.doubt { border-left: 4px solid #edae49; padding: .4rem .8rem; background: #fdf6e3; }
.panels { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
img { width: 100%; height: auto; display: block; }
@media (max-width: 40rem) { th, td { padding: .25rem .4rem; font-size: 13px; } }
"""  # noqa: E501  # a line of CSS is one rule


class _Storm:
    """An outcome with its times counted from the fault."""

    def __init__(self, outcome: Outcome, colour: str, virtual: StormResult | None) -> None:
        self.outcome = outcome
        self.colour = colour
        self.virtual = virtual
        self._at = outcome.fault_at
        self.end = int(outcome.back_at - self._at + outcome.scenario.after_s) + 1

    @property
    def label(self) -> str:
        return self.outcome.policy

    def counts(self, times: Iterable[float]) -> tuple[list[int], list[int]]:
        """Events a second, from a little before the fault to the end."""
        found = Counter(int((time - self._at) // 1) for time in times)
        seconds = list(range(-_BEFORE_S, self.end))
        return seconds, [found[second] for second in seconds]

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
        """The moments and values of one of those figures."""
        return [self.since(s.at) for s in self.sampled], [read(s) for s in self.sampled]

    def cpu(self) -> tuple[list[float], list[float]]:
        """Cores in use, between samples."""
        pairs = list(itertools.pairwise(self.sampled))
        times = [self.since(later.at) for _, later in pairs]
        return times, [
            max(0.0, (later.cpu_s - first.cpu_s) / max(0.1, later.at - first.at))
            for first, later in pairs
        ]


def _knocks(axes: Axes, storm: _Storm) -> None:
    axes.plot(*storm.counts(storm.outcome.observed.knocks), label=storm.label, color=storm.colour)


def _admissions(axes: Axes, storm: _Storm) -> None:
    counts = storm.counts(storm.outcome.observed.admissions)
    axes.plot(*counts, label=storm.label, color=storm.colour)
    axes.axhline(storm.outcome.scenario.rate_per_s, color="#888888", linewidth=0.8, linestyle="--")


def _refusals(axes: Axes, storm: _Storm) -> None:
    times = (time for time, _status in storm.outcome.observed.refusals)
    axes.plot(*storm.counts(times), label=storm.label, color=storm.colour)


def _waiting(axes: Axes, storm: _Storm) -> None:
    axes.plot(*storm.waiting(), label=storm.label, color=storm.colour)


def _latency(axes: Axes, storm: _Storm) -> None:
    axes.plot(*storm.latency_ms(), label=storm.label, color=storm.colour)


def _rate(axes: Axes, storm: _Storm) -> None:
    axes.step(
        *storm.samples(lambda s: s.rate_per_s), where="post", label=storm.label, color=storm.colour
    )
    held = [s for s in storm.sampled if s.limited_by != "ceiling"]
    times, rates = [storm.since(s.at) for s in held], [s.rate_per_s for s in held]
    axes.plot(times, rates, "v", markersize=4, color=storm.colour)
    named = ""
    for sample in held:
        if sample.limited_by != named:
            named = sample.limited_by
            place = (storm.since(sample.at), sample.rate_per_s)
            axes.annotate(named, place, fontsize=7, color=storm.colour)


def _cpu(axes: Axes, storm: _Storm) -> None:
    axes.plot(*storm.cpu(), label=storm.label, color=storm.colour)


def _memory(axes: Axes, storm: _Storm) -> None:
    memory = storm.samples(lambda s: s.memory / 2**20)
    axes.plot(*memory, label=storm.label, color=storm.colour)


def _waits(axes: Axes, storm: _Storm) -> None:
    virtual = storm.virtual
    curves = [(sorted(storm.outcome.observed.waits), storm.label, "-")]
    if virtual is not None:
        curves.append((sorted(virtual.waits), f"{storm.label}, simulated", "--"))
    for found, label, style in curves:
        if found:
            shares = [(place + 1) / len(found) for place in range(len(found))]
            axes.plot(found, shares, label=label, color=storm.colour, linestyle=style)


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    unit: str
    draw: Callable[[Axes, _Storm], None]
    across: str = "seconds after the fault"


_PANELS: Final = (
    _Panel("Arrivals: knocks", "a second", _knocks),
    _Panel("Admissions (dashed: R)", "a second", _admissions),
    _Panel("Refusals", "a second", _refusals),
    _Panel("Devices without a session", "devices", _waiting),
    _Panel("Ack latency, p99", "ms", _latency),
    _Panel("R of the gateways (triangles: held down)", "a second", _rate),
    _Panel("CPU of gateways and their NATS", "cores", _cpu),
    _Panel("Memory of the largest gateway", "MiB", _memory),
    _Panel("Share of devices back within", "share", _waits, "seconds after losing the connection"),
)


def _draw(axes: Axes, panel: _Panel, storms: Sequence[_Storm]) -> None:
    for storm in storms:
        panel.draw(axes, storm)
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_ylabel(panel.unit, fontsize=9)
    axes.set_xlabel(panel.across, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0, top=max(axes.dataLim.y1 * 1.08, 0.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)


def _sheet(storms: Sequence[_Storm], title: str) -> Figure:
    """Every panel on one sheet."""
    figure, grid = plt.subplots((len(_PANELS) + 1) // 2, 2, figsize=_SHEET_INCHES)
    figure.subplots_adjust(**_SHEET_MARGINS)
    for axes, panel in itertools.zip_longest(grid.flat, _PANELS):
        if panel is None:
            axes.set_axis_off()
        else:
            _draw(axes, panel, storms)
    figure.suptitle(title, fontweight="bold")
    return figure


def _picture(panel: _Panel, storms: Sequence[_Storm]) -> str:
    """One panel, as an image within the page that is as wide as the screen allows."""
    figure, axes = plt.subplots(figsize=_PANEL_INCHES)
    figure.subplots_adjust(**_PANEL_MARGINS)
    _draw(axes, panel, storms)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg")
    plt.close(figure)
    encoded = base64.b64encode(drawn.getvalue()).decode()
    return f"<img alt='{html.escape(panel.title)}' src='data:image/svg+xml;base64,{encoded}'>"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        made = ""
        for cell in cells:
            word = f" class='{cell}'" if cell in ("reached", "missed") else ""
            made += f"<{tag}{word}>{html.escape(cell)}</{tag}>"
        return f"<tr>{made}</tr>"

    lines = "".join(line(row, "td") for row in body)
    return f"<div class='wide'><table>{line(head, 'th')}{lines}</table></div>"


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys joined by dots, with their values."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def page_of(
    judgement: Judgement,
    outcomes: Sequence[Outcome],
    simulated: Sequence[StormResult | None],
    pictures: Sequence[str],
) -> str:
    """The page as HTML.

    Args:
        judgement: of the first outcome.
        outcomes: of each storm.
        simulated: the same storms in virtual time, where there are any.
        pictures: the panels, as HTML.
    """
    scenario = judgement.outcome.scenario
    word = "passed" if judgement.passed else "failed"
    title = html.escape(scenario.title)
    verdicts = [
        (v.name, f"{v.wanted:g}", "-" if v.measured is None else f"{v.measured:.4g}", v.word)
        for v in judgement.verdicts
    ]
    head = [""]
    for outcome, virtual in zip(outcomes, simulated, strict=True):
        head.append(outcome.policy)
        if virtual is not None:
            head.append(f"{outcome.policy}, simulated")
    doubts = "".join(
        f"<p class='doubt'>{html.escape(doubt[0].upper() + doubt[1:])}.</p>"
        for doubt in judgement.doubts
    )
    happened = rows(outcomes, simulated)
    settings = list(_flat(scenario.model_dump(exclude_none=True)))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Tidegate storm: {title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1>"
        f"<p><b class='{word}'>{word}</b>: {scenario.devices:,} devices, "
        f"R = {scenario.rate_per_s:g}/s</p>{doubts}"
        f"<h2>Objectives</h2>{_table(('objective', 'at most', 'measured', ''), verdicts)}"
        f"<h2>What happened</h2>{_table(head, happened)}"
        f"<h2>Second by second</h2><div class='panels'>{''.join(pictures)}</div>"
        f"<h2>Scenario</h2>{_table(('key', 'value'), settings)}</body></html>"
    )


def write_report(
    path: Path,
    judgement: Judgement,
    outcomes: Sequence[Outcome],
    simulated: Sequence[StormResult | None],
) -> None:
    """Write `path` and, beside it, the picture as a PNG.

    Raises:
        OSError: a file cannot be written there.
    """
    storms = [
        _Storm(outcome, _COLOURS[number % len(_COLOURS)], virtual)
        for number, (outcome, virtual) in enumerate(zip(outcomes, simulated, strict=True))
    ]
    scenario = judgement.outcome.scenario
    word = "passed" if judgement.passed else "failed"
    sheet = _sheet(
        storms,
        f"{scenario.title}: {scenario.devices:,} devices, R = {scenario.rate_per_s:g}/s: {word}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(sheet)
    pictures = [_picture(panel, storms) for panel in _PANELS]
    path.write_text(page_of(judgement, outcomes, simulated, pictures))

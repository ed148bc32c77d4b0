"""The verdict on figures in turns: 3 %, or the spread of the control if that is larger."""

import io

import pytest
from rich.console import Console

from loadtest.benches import figures
from loadtest.verdicts import Report


def series(*values):
    made = figures.Series()
    for value in values:
        made.add(dict.fromkeys(figures.FIGURES, value))
    return made


def judged(ours, theirs, control):
    report = Report(Console(file=io.StringIO(), width=200))
    sides = {"A": series(*theirs), "B": series(*ours), "control": series(*control)}
    figures.judge(report, sides, len(ours))
    return report


QUIET = (10.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("ours", "reached"), [(10.0, True), (9.0, True), (10.29, True), (10.31, False)]
)
def test_three_percent_are_allowed_where_the_control_is_steady(ours, reached):
    report = judged([ours] * 3, QUIET, QUIET)
    assert (report.status() == 0) is reached
    assert len(report.failed) == (0 if reached else len(figures.FIGURES))


def test_a_control_that_scatters_allows_its_spread():
    theirs, control = (9.0, 10.0, 11.0), (9.5, 10.0, 10.5)
    allowed = figures.spread([*theirs, *control])
    assert allowed > figures.TOLERANCE
    assert judged([10 * (1 + allowed) - 0.01] * 3, theirs, control).status() == 0
    assert judged([10 * (1 + allowed) + 0.01] * 3, theirs, control).status() == 1


def test_a_control_that_is_off_allows_as_much():
    assert judged([10.4] * 3, QUIET, (10.5, 10.5, 10.5)).status() == 0
    assert judged([10.9] * 3, QUIET, (10.5, 10.5, 10.5)).status() == 1


def test_the_spread_is_between_the_quartiles():
    assert figures.spread([10.0, 10.0, 10.0, 10.0, 99.0]) == 0.0
    assert figures.spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.2)
    assert figures.spread([10.0]) == 0.0

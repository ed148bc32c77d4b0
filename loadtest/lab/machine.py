"""How busy the machine was during a run: a verdict from an overloaded machine means little."""

import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtest.lab.observations import MachineSample
from loadtest.servers import proc

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_AT_LIMIT: Final = 0.95
"""Share of all cores from which on processes wait for a core."""
_LIMIT_SHARE: Final = 0.2
"""Share of the time at that limit from which on the verdict is doubted."""
_OTHERS_CORES: Final = 0.25
"""Cores used by processes that are not the run's, from which on the verdict is doubted."""


def sample(at: float) -> MachineSample | None:
    """The machine now, at moment `at` of the observations; None where there is no /proc."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
    busy = user + nice + system + irq + softirq + steal
    return MachineSample(at, busy / _TICKS_PER_S, _tree_cpu_s(os.getpid()))


def _tree_cpu_s(root: int) -> float:
    """CPU time of a process and its descendants, with that of children that have ended."""
    ticks = 0
    for pid in (root, *proc.descendants(root)):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, proc.stat_fields(pid)[11:15]))
    return ticks / _TICKS_PER_S


def remarks(samples: Sequence[MachineSample], start: float, end: float, *, cores: int) -> list[str]:
    """What makes a verdict doubtful because of the machine, one sentence each.

    Args:
        samples: of the run.
        start: when the time that is judged begins, in seconds of the observations' clock.
        end: when it ends.
        cores: how many the machine has.
    """
    judged = [each for each in samples if start <= each.at <= end]
    steps = [(first, last) for first, last in itertools.pairwise(judged) if last.at > first.at]
    if not steps:
        return []
    spans = [(last.at - first.at, last.busy_s - first.busy_s) for first, last in steps]
    full_s = sum(span for span, busy_s in spans if busy_s >= _AT_LIMIT * cores * span)
    whole_s = judged[-1].at - judged[0].at
    busy_s = judged[-1].busy_s - judged[0].busy_s
    ours_s = judged[-1].ours_s - judged[0].ours_s
    found = []
    if full_s >= _LIMIT_SHARE * whole_s:
        found.append(
            f"the machine was busy: all {cores} cores were busy for {full_s / whole_s:.0%} of the "
            "storm: what was late may have waited for the machine"
        )
    others = max(0.0, busy_s - max(0.0, ours_s)) / whole_s
    if others >= _OTHERS_CORES:
        found.append(
            f"the machine was busy: other processes took {others:.1f} of {cores} cores during the "
            "storm"
        )
    return found

"""When the machine was too busy for a verdict to mean much."""

import os
import subprocess
import sys

from loadtest.lab.machine import remarks, sample
from loadtest.lab.observations import MachineSample
from loadtest.servers.proc import descendants
from support.waiting import eventually


def samples(busy, ours, seconds=20):
    """Samples with so many cores busy, and so many of them with the run."""
    return [MachineSample(float(at), busy * at, ours * at) for at in range(seconds + 1)]


def test_a_quiet_machine_raises_no_doubt():
    assert remarks(samples(1.2, 1.2), 5, 15, cores=2) == []
    assert remarks([], 5, 15, cores=2) == []
    assert remarks(samples(2.0, 2.0)[:1], 0, 15, cores=2) == []


def test_cores_at_their_limit_raise_a_doubt():
    (said,) = remarks(samples(1.95, 1.9), 5, 15, cores=2)
    assert said.startswith("the machine was busy: all 2 cores were busy for 100%")
    assert remarks(samples(1.85, 1.8), 5, 15, cores=2) == []


def test_a_short_peak_raises_no_doubt():
    found = samples(1.0, 1.0)
    found[10:] = [MachineSample(s.at, s.busy_s + 1, s.ours_s + 1) for s in found[10:]]
    assert remarks(found, 0, 20, cores=2) == []
    found[11:] = [MachineSample(s.at, s.busy_s + 3, s.ours_s + 3) for s in found[11:]]
    found[12:] = [MachineSample(s.at, s.busy_s + 3, s.ours_s + 3) for s in found[12:]]
    found[13:] = [MachineSample(s.at, s.busy_s + 3, s.ours_s + 3) for s in found[13:]]
    assert "busy for 20%" in remarks(found, 0, 20, cores=2)[0]


def test_other_processes_raise_a_doubt_only_in_the_time_that_is_judged():
    (said,) = remarks(samples(1.5, 1.0), 5, 15, cores=2)
    assert said == "the machine was busy: other processes took 0.5 of 2 cores during the storm"
    found = samples(1.0, 1.0)
    found[3:] = [MachineSample(s.at, s.busy_s + 5, s.ours_s) for s in found[3:]]
    assert remarks(found, 5, 15, cores=2) == []
    assert remarks(found, 1, 15, cores=2) != []


async def test_a_sample_counts_what_the_run_started():
    code = "import sys, time\nwhile True: pass"
    before = sample(0.0)
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        try:
            assert child.pid in descendants(os.getpid())

            def counted():
                now = sample(1.0)
                return now.ours_s - before.ours_s > 0.05 and now.busy_s > before.busy_s

            await eventually(counted)
        finally:
            child.kill()

"""What traces cost: the verdict, and a run of a moment."""

import subprocess
import sys

import pytest

from loadtest.benches import traces
from loadtest.benches.rig import Bench


def costs(control, none, some):
    return {"off": [13.0, 15.0, 14.0], "control": control, "ratio 0": none, "ratio 0.01": some}


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (costs([13.0, 15.0, 14.0], [13.05, 15.05, 14.0], [13.25, 15.2, 14.25]), []),
        (costs([13.0, 15.0, 14.0], [13.2, 15.2, 14.2], [13.25, 15.2, 14.25]), ["ratio 0"]),
        (costs([13.0, 15.0, 14.0], [13.0, 15.0, 14.0], [13.5, 15.5, 14.5]), ["ratio 0.01"]),
        (costs([13.4, 15.4, 14.4], [13.4, 15.4, 14.4], [13.6, 15.6, 14.6]), []),
    ],
)
def test_a_side_may_cost_its_limit_and_the_noise_of_the_control(tmp_path, found, missed):
    bench = Bench.below(tmp_path)
    traces.judge(bench, found, 3)
    assert bench.report.failed == [f"{name}, change in us" for name in missed]


@pytest.mark.long
def test_a_run_of_a_moment_has_all_sides():
    command = [sys.executable, "-m", "loadtest.benches.turns", "--traces"]
    command += ["--turns", "1", "--messages", "2000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "ratio 0.01" in done.stdout
    assert "spans of messages were exported" in done.stdout

"""The wrapper of CI: bounded in time, and nothing stays behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BOUNDED = Path(__file__).parents[1] / ".ci" / "bounded.py"


def bounded(seconds, *command):
    return subprocess.run(
        [sys.executable, BOUNDED, str(seconds), *command],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_status_is_the_commands():
    assert bounded(60, "sh", "-c", "exit 3").returncode == 3
    assert bounded(60, "sh", "-c", "kill -9 $$").returncode == 137


def test_a_command_that_hangs_is_ended_and_said():
    done = bounded(0.2, "sleep", "600")
    assert done.returncode == 124
    assert "not done in 0.2 s: sleep 600" in done.stderr


def test_a_command_hears_sigint_though_whoever_started_it_ignores_that():
    """As in the background of a script: `.ci/run` itself runs the matrix of the client so."""
    command = "trap 'echo interrupted; exit' INT; sleep 603 & wait"
    script = f"trap '' INT; exec {sys.executable} {BOUNDED} 2 sh -c \"{command}\""
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (124, "interrupted\n")


def test_what_left_the_session_is_ended_as_well(tmp_path):
    inner = "sleep 601 & echo $! > pids; echo $$ >> pids; mv pids ready; exec sleep 602"
    script = f"cd {tmp_path}; setsid sh -c '{inner}' & until [ -e ready ]; do sleep 0.05; done"
    done = bounded(60, "sh", "-c", script)
    assert done.returncode == 0
    for pid in map(int, (tmp_path / "ready").read_text().split()):
        assert f"left behind: {pid} " in done.stderr
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

"""The drill of the runbook is carried out, and ends with its verdict."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_drill_of_backup_and_restore():
    done = subprocess.run(
        [sys.executable, ROOT / "config" / "drills" / "restore.py"],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost: the 100 events between backup and disaster, and nothing else" in done.stdout

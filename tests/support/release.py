"""The last release, as it was: exported from git into a folder."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

LAST_RELEASE = "60cc8bd"
"""The commit of the last release: the newest one without `welcome.features`."""

_ROOT = Path(__file__).parents[2]


def export_last_release(directory: Path) -> Path:
    """The rooms of the last release, in `directory`.

    A clone without that commit fails the test: a compatibility nobody checks is none. Only a source
    tree that is no clone at all (an unpacked archive, outside CI) is let off.
    """
    if not (_ROOT / ".git").exists() and "CI" not in os.environ:
        pytest.skip("no git history here")
    done = subprocess.run(
        ["git", "archive", "--format=tar", LAST_RELEASE, "gateway", "clients"],
        cwd=_ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{done.stderr.decode().strip()}; a full clone is needed (fetch --unshallow)")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def run_released(source: Path, code: str, *arguments: str) -> str:
    """What `code` prints, run with the modules of `source`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

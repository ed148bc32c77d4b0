"""What the examples share: they start the commands of tidegate as you would, and show them."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TIDEGATE = [sys.executable, "-m", "gateway"]
_ATTEMPTS = 300
_WAIT_S = 0.1


@contextmanager
def running(
    directory: Path, name: str, ready: str, *arguments: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A command of tidegate, from when its page `ready` answers until the end of the block."""
    command = [*TIDEGATE, *map(str, arguments)]
    print("$ tidegate", *arguments, flush=True)
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"NO_COLOR": "1"})
    try:
        until(lambda: _answers(ready, process), ready)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, for half a minute at most."""
    for _ in range(_ATTEMPTS):
        if condition():
            return
        time.sleep(_WAIT_S)
    sys.exit(f"{what}: not within {_ATTEMPTS * _WAIT_S:.0f} s")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        sys.exit(f"it ended with {process.returncode}")
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310  # our own page
            return True
    except OSError:
        return False

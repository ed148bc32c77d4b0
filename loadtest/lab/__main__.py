"""The storm lab: `tidegate storm SCENARIO`, or `python -m loadtest.lab SCENARIO`.

Locust drives the vehicles, headless and in this process; the gateways are processes of their own.
A fleet is built up, is calm for a while, meets the scenario's fault, and is watched until every
device is back. Then the objectives are judged, and a report is written.
"""

# gevent replaces the blocking parts of the standard library, and must come before they are used.
from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402  # as above

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from loadtest.errors import LoadtestError
from loadtest.lab.checks import checked_scenario
from loadtest.lab.options import parse
from loadtest.servers import proc


def _end_at_once(base: Path, console: Console) -> None:
    """On SIGINT and SIGTERM, end the servers, remove their files, and end this process.

    Nothing is drained: thousands of greenlets and servers in temporary directories have nothing to
    save, and the user who interrupts a storm waits for the prompt.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for pid in proc.descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        console.show_cursor(show=True)
        shutil.rmtree(base, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _perform(arguments: Sequence[str], base: Path, console: Console) -> int:
    options = parse(arguments)
    scenario = checked_scenario(options)
    # locust and matplotlib take two seconds to load: a mistyped name must not wait for them.
    from loadtest.lab.runner import run_lab  # noqa: PLC0415  # as above

    return run_lab(options, scenario, base, console)


def main() -> None:
    """Entry point."""
    logging.getLogger("locust").setLevel(logging.ERROR)  # it warns of any spawn rate over 100
    console = Console()
    with tempfile.TemporaryDirectory(prefix="tidegate-storm-") as directory:
        _end_at_once(Path(directory), console)
        try:
            status = _perform(sys.argv[1:], Path(directory), console)
        except LoadtestError as exc:
            for line in str(exc).splitlines():
                print(f"tidegate: {line}", file=sys.stderr)
            status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # thousands of greenlets would each be unwound first


if __name__ == "__main__":
    main()

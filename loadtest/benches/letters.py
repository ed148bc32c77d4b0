"""Benchmark of dead letters: `make bench-letters`. The first page of a long list, as people wait.

make bench-letters ARGS="--letters 10000"
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Final

from loadtest.servers.backends import NatsServer
from loadtest.servers.letters import RULE, bury, make_letter_streams
from loadtest.verdicts import Report

_FIRST_PAGE_S: Final = 1.0
_RUNS: Final = 5
_PROGRAM: Final = ("-c", "from gateway.cli import main; main()")
_PAGES: Final = {
    "first page": [],
    "first page of a rule": ["--stage", "rule", "--consumer", RULE],
    "first page of a device": ["--device", "veh-7"],
}


def _seconds(url: str, arguments: list[str]) -> float:
    """From the start of the command to its end."""
    command = [sys.executable, *_PROGRAM, "deadletters", "list", "--nats-url", url, *arguments]
    began = monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the first page of letters takes.")
    parser.add_argument("--letters", type=int, default=100_000)
    options = parser.parse_args()
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-bench-letters-") as name,
        NatsServer(Path(name) / "nats") as server,
    ):
        asyncio.run(make_letter_streams(server.url, duplicate_window_s=10.0))
        asyncio.run(bury(server.url, options.letters))
        _seconds(server.url, [])  # reads the program from the disk
        found = {
            page: [_seconds(server.url, arguments) for _ in range(_RUNS)]
            for page, arguments in _PAGES.items()
        }
    report.table(
        f"tidegate deadletters list over {options.letters:,} letters, whole command",
        ("", "median s", "longest s"),
        [[page, f"{median(times):.2f}", f"{max(times):.2f}"] for page, times in found.items()],
    )
    report.at_most("first page", median(found["first page"]), _FIRST_PAGE_S, unit=" s")
    sys.exit(report.status())


if __name__ == "__main__":
    main()

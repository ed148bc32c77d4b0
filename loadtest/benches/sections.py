"""Benchmarks made of named sections: the command line they share."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import uvloop

from loadtest.benches.rig import Section, run_sections
from loadtest.devices.limits import take_all_descriptors
from loadtest.errors import LoadtestError

RunSections = Callable[[Sequence[str], float], Awaitable[int]]


def main_of_sections(name: str, description: str, sections: Mapping[str, Section]) -> None:
    """The command line of a benchmark whose sections take a `Bench`."""
    main_of(name, description, sections, partial(run_sections, sections))


def main_of(
    name: str, description: str, sections: Mapping[str, object], run: RunSections
) -> None:  # fmt: skip
    """Run the sections named on the command line, or all; exit 1 if an objective was missed.

    Args:
        name: of the benchmark, before its errors.
        description: for `--help`.
        sections: by name, in order.
        run: takes their names and the seconds each side is measured; returns the exit status.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long a side is measured (10)"
    )
    options = parser.parse_args()
    unknown = set(options.sections) - set(sections)
    if unknown:
        there_are = ", ".join(sections)
        parser.error(f"unknown section {', '.join(sorted(unknown))}; there are {there_are}")
    take_all_descriptors()

    async def chosen() -> int:
        return await run(options.sections or list(sections), options.seconds)

    try:
        status = uvloop.run(chosen())
    except LoadtestError as exc:
        sys.exit(f"{name}: {exc}")
    sys.exit(status)

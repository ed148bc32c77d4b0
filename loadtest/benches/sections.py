"""Benchmarks made of named sections: the command line they share."""

import argparse
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import uvloop

from loadtest.errors import LoadtestError

RunSections = Callable[[Sequence[str], float], Awaitable[int]]


def main_of(
    name: str, description: str, sections: Mapping[str, object], run: RunSections
) -> None:  # fmt: skip
    """Run the sections named on the command line, all without any; exit 1 if a promise is missed.

    Args:
        name: of the benchmark, before its errors.
        description: for `--help`.
        sections: by name, in order.
        run: takes their names and the seconds each side is measured; gives the exit status.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--seconds", type=float, default=10.0, help="measured, where it matters")
    options = parser.parse_args()
    unknown = set(options.sections) - set(sections)
    if unknown:
        there_are = ", ".join(sections)
        parser.error(f"unknown section {', '.join(sorted(unknown))}; there are {there_are}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))

    async def chosen() -> int:
        return await run(options.sections or list(sections), options.seconds)

    try:
        status = uvloop.run(chosen())
    except LoadtestError as exc:
        sys.exit(f"{name}: {exc}")
    sys.exit(status)

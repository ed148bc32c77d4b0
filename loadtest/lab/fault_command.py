"""The command line of a fault run of consumers, and its report: events, faults, seed, control."""

import argparse
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import uvloop

from loadtest.errors import LoadtestError
from loadtest.verdicts import Report


def main_of_faults(
    name: str,
    description: str,
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
    *,
    events: int,
    controls: Sequence[str],
) -> None:
    """Run it as the arguments of the process say, and end the process with its status.

    Args:
        name: the target of `make`, for messages.
        description: for `--help`.
        run: takes the options; returns the status.
        events: how many, if nothing else is said.
        controls: consumers that are wrong on purpose.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--events", type=int, default=events)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", choices=controls, help="a broken one, to be found out")
    options = parser.parse_args()
    try:
        sys.exit(uvloop.run(run(options)))
    except LoadtestError as exc:
        sys.exit(f"{name}: {exc}")


def report_faults(
    options: argparse.Namespace,
    title: str,
    counted: Mapping[str, int],
    damage: Mapping[str, int],
    done: Mapping[str, int],
    seconds: float,
) -> int:
    """Print what a run found.

    Args:
        options: of the command line.
        title: what ran.
        counted: what was processed.
        damage: what must not be, by kind; a control must have `doubled`.
        done: how often each fault was made.
        seconds: the run took.

    Returns:
        The status of the process.
    """
    report = Report()
    report.table(
        title + (f", control {options.control}" if options.control else ""),
        ("", ""),
        [
            *((each, f"{count:,}") for each, count in counted.items()),
            *((each, f"{count} x") for each, count in sorted(done.items())),
            ("seconds", f"{seconds:.0f}"),
            ("seed", f"{options.seed}"),
        ],
    )
    if options.control:
        doubled = damage["doubled"]
        report.verdict("doubled", doubled, "more than 0", ok=doubled > 0)
    else:
        for what, count in damage.items():
            report.none(what, count)
    return report.status()

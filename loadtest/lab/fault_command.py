"""The command line of a fault run of consumers: events, faults, seed, control."""

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from loadtest.errors import LoadtestError


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

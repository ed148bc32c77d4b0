"""`python -m clients.conformance [options] -- COMMAND ...`: every exchange against one client."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from clients.conformance.errors import ConformanceError
from clients.conformance.play import Player, load_exchanges


async def run_all(command: list[str], only: str = "", at_once: int = 4) -> dict[str, str]:
    """
    Returns:
        For each exchange "" if the client did what it says, "lacks ..", or what was wrong.
    """
    slots = asyncio.Semaphore(at_once)
    results: dict[str, str] = {}

    async def run(exchange: dict[str, str]) -> None:
        async with slots:
            with tempfile.TemporaryDirectory(prefix="tidegate-conformance-") as directory:
                try:
                    lacking = await Player(command, exchange, Path(directory)).play()
                except ConformanceError as exc:
                    results[exchange["name"]] = str(exc)
                else:
                    results[exchange["name"]] = f"lacks {lacking}" if lacking else ""

    exchanges = [each for each in load_exchanges() if only in each["name"]]
    async with asyncio.TaskGroup() as group:
        for exchange in exchanges:
            group.create_task(run(exchange))
    return {each["name"]: results[each["name"]] for each in exchanges}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clients.conformance", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="exchanges whose name has TEXT")
    parser.add_argument("--at-once", type=int, default=4, help="exchanges at a time")
    parser.add_argument("command", nargs="+", help="what starts the client under test")
    options = parser.parse_args()
    if shutil.which(options.command[0]) is None:
        parser.error(f"{options.command[0]} is no program that can be run")
    results = asyncio.run(run_all(options.command, options.only, options.at_once))
    failed = 0
    for name, outcome in results.items():
        bad = bool(outcome) and not outcome.startswith("lacks ")
        failed += bad
        word = "FAILED" if bad else "skipped" if outcome else "ok"
        sys.stdout.write(f"{word:8}{name}{': ' + outcome if outcome else ''}\n")
    if not results:
        parser.error(f"no exchange has {options.only} in its name")
    skipped = sum(outcome.startswith("lacks ") for outcome in results.values())
    good = len(results) - failed - skipped
    sys.stdout.write(f"{good} of {len(results)} exchanges, {skipped} skipped, {failed} failed\n")
    return 1 if failed or not good else 0


if __name__ == "__main__":
    sys.exit(main())

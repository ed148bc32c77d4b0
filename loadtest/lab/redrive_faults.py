"""Fault runs of redrives: `python -m loadtest.lab.redrive_faults`.

    make faults-redrive                                   # 10,000 letters, killed, ten times
    make faults-redrive ARGS="--letters 1000 --rounds 2 --seed 7"

Half of the letters are the gateway's and go to EVENTS; half are of a rule and go through REDRIVES
and `tidegate route` to a stream of alerts. In each round, which has a server of its own, the
redrive is killed with -9 at a random point and run again until it ends by itself, and `route` is
killed once too. The duplicate windows are 2 s, shorter than the wait for the lease, so no id is
remembered from before a kill. The checker reads the streams itself. A run is its seed.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import nats
import nats.js.errors
import uvloop

from loadtest.errors import LoadtestError, TargetError
from loadtest.lab.redrive_checker import Findings, check
from loadtest.servers.backends import NatsServer
from loadtest.servers.gateway import RouteServer
from loadtest.servers.letters import RULE, RULE_TYPE, bury, make_letter_streams
from loadtest.verdicts import Report
from loadtest.waiting import until_awaited

_DUPLICATE_WINDOW_S: Final = 2.0
_ROUND_S: Final = 300.0
_RULES: Final = f"""\
[[rule]]
name = "{RULE}"
to = "nats:alerts.{{tenant}}.{{device}}"
from = "start"
when = {{ type = ["{RULE_TYPE}"] }}
"""
_PROGRAM: Final = ("-c", "from gateway.cli import main; main()")


async def _messages(url: str, stream: str) -> int:
    """Messages that a stream holds; 0 if there is none."""
    client = await nats.connect(url)
    try:
        return (await client.jetstream().stream_info(stream)).state.messages
    except nats.js.errors.NotFoundError:
        return 0
    finally:
        await client.close()


async def _at_least(url: str, stream: str, wanted: int) -> bool:
    return await _messages(url, stream) >= wanted


class Redrives:
    """Runs of `tidegate deadletters redrive`, some of which are killed."""

    def __init__(
        self, url: str, route: RouteServer, kill_redrives_at: list[int], kill_route_at: int
    ) -> None:
        """
        Args:
            url: of NATS.
            route: is killed and started again once.
            kill_redrives_at: messages in REDRIVES at which a redrive is killed, one redrive each.
            kill_route_at: messages in ALERTS at which `route` is killed.
        """
        self._url = url
        self._route = route
        self._kill_redrives_at = kill_redrives_at
        self._kill_route_at = kill_route_at
        self.kills = 0
        self.route_kills = 0

    async def run(self) -> None:
        """Run one after another until one ends by itself.

        Raises:
            TargetError: one failed, or they took too long.
        """
        try:
            async with asyncio.timeout(_ROUND_S):
                while not await self._run_one():
                    pass
        except TimeoutError:
            raise TargetError(f"the redrives did not end in {_ROUND_S:.0f} s") from None

    async def _run_one(self) -> bool:
        """Whether it ended by itself."""
        arguments = ("deadletters", "redrive", f"--nats-url={self._url}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *_PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE
        )
        ended = asyncio.create_task(process.communicate())
        try:
            while not ended.done():
                if await self._due():
                    break
                await asyncio.wait({ended}, timeout=0.005)
        finally:
            if process.returncode is None:
                process.kill()
            _, said = await ended
        if process.returncode:
            if process.returncode > 0:
                raise TargetError(f"the redrive failed: {said.decode()}")
            self.kills += 1
        return process.returncode == 0

    async def _due(self) -> bool:
        """Kill `route` if it is time to; returns whether it is time to kill the redrive."""
        await self._kill_route()
        due = self._kill_redrives_at
        if due and await _at_least(self._url, "REDRIVES", due[0]):
            due.pop(0)
            return True
        return False

    async def _kill_route(self) -> None:
        """Kill `route` once, if it is time to."""
        if not self.route_kills and await _at_least(self._url, "ALERTS", self._kill_route_at):
            self.route_kills += 1
            self._route.kill()
            await asyncio.to_thread(self._route.start)

    async def delivered(self, messages: int) -> bool:
        """Whether ALERTS holds so many. `route` may be killed after the last redrive too."""
        await self._kill_route()
        return await _at_least(self._url, "ALERTS", messages)


class Kills(NamedTuple):
    """Processes that were killed in a round while they worked."""

    redrives: int
    routes: int


async def one_round(letters: int, kills: int, rng: random.Random) -> tuple[Kills, Findings]:
    """Redrive so many letters with so many kills.

    Returns:
        What was killed, and what the checker found.

    Raises:
        TargetError: not everything was delivered in time.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-redrive-faults-") as name:
        directory = Path(name)
        with NatsServer(directory / "nats") as server:
            await make_letter_streams(server.url, duplicate_window_s=_DUPLICATE_WINDOW_S)
            await bury(server.url, letters)
            # REDRIVES has a fact a letter, and a message for every second one. A kill behind nine
            # tenths would often come after the end.
            at = sorted(rng.randrange(1, letters * 27 // 20) for _ in range(kills))
            with RouteServer(directory / "route", nats_url=server.url, rules=_RULES) as route:
                redrives = Redrives(server.url, route, at, rng.randrange(1, letters // 2))
                await redrives.run()
                delivered = partial(redrives.delivered, letters // 2)
                await until_awaited(delivered, "all letters of the rule delivered", 60.0)
            killed = Kills(redrives.kills, redrives.route_kills)
            return killed, await check(server.url)


async def run(options: argparse.Namespace) -> int:
    report, rng = Report(), random.Random(options.seed)
    rows, total = [], Counter[str]()
    for number in range(1, options.rounds + 1):
        began = monotonic()
        kills, found = await one_round(options.letters, options.kills, rng)
        total.update(found.hurt)
        rows.append(
            [
                f"{number}",
                f"{kills.redrives}",
                f"{kills.routes}",
                f"{found.letters:,}",
                f"{found.sent:,}",
                f"{found.facts:,}",
                f"{found.hurt.total():,}",
                f"{monotonic() - began:.0f}",
            ]
        )
    # The kinds of hurt have no columns: a terminal of 80 has no room for them.
    columns = ("round", "kills", "of route", "letters", "sent", "facts", "hurt", "seconds")
    report.table(f"Redrives, seed {options.seed}", columns, rows)
    for what, count in total.items():
        report.none(what, count)
    return report.status()


def main() -> None:
    parser = argparse.ArgumentParser(description="Each letter is sent exactly once.")
    parser.add_argument("--letters", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=1, help="of the redrive, in each round")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        sys.exit(uvloop.run(run(options)))
    except LoadtestError as exc:
        sys.exit(f"faults-redrive: {exc}")


if __name__ == "__main__":
    main()

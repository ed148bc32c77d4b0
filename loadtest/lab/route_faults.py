"""Fault runs of rules: `python -m loadtest.lab.route_faults`. Two processes, two rules.

    make faults-route                                     # 200,000 events, 20 random faults
    make faults-route ARGS="--events 20000 --faults 4 --seed 7"
    make faults-route ARGS="--control no-look-up"         # a broken route: must be found out

One rule writes to a stream whose duplicate window is 2 s, one posts to a receiver that has its
moods. The checker (`route_checker.py`) reads stream, target and dead letters itself. Each event is
in the target's stream once, in the order of its device, and was accepted by the receiver at least
once, with one id. A run is its seed.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import nats
from nats.js.api import StreamConfig

from loadtest.lab.fault_command import main_of_faults, report_faults
from loadtest.lab.fault_mix import FaultMix, Position, flow_through
from loadtest.lab.mishaps import kill_and_start, pause
from loadtest.lab.route_checker import Findings, check
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import make_streams
from loadtest.servers.gateway import RouteServer
from loadtest.servers.process import send_signal
from loadtest.servers.receiver import MOODS, Receiver

_PAUSE_S: Final = 4.0
_LONG_PAUSE_S: Final = 7.0
"""Longer than a lease: the other process takes over meanwhile."""
_MOOD_S: Final = 3.0
_WINDOW_S: Final = 2.0
_BROKEN: Final = Path(__file__).parents[2] / "tests" / "support" / "broken_route.py"
CONTROLS: Final = ("no-look-up",)
_TARGET: Final = "DERIVED"
_RULES: Final = """\
[[rule]]
name = "stored"
from = "start"
when = {{ type = ["battery.low"] }}
to = "nats:derived.{{device}}"

[[rule]]
name = "posted"
from = "start"
when = {{ type = ["battery.low"], data = {{ soc = [{{ numeric = ["<", 10] }}] }} }}
to = "{url}"
concurrency = 64
attempts = 1000
timeout_ms = 2000
retry_ms = 50
retry_max_ms = 1000
"""


class Stage:
    """Two processes of route, a nats-server, a receiver; and what can be done to them."""

    def __init__(
        self,
        routes: Sequence[RouteServer],
        server: NatsServer,
        receiver: Receiver,
        rng: random.Random,
    ) -> None:
        self.routes = routes
        self.server = server
        self.receiver = receiver
        self._rng = rng
        self.faults = FaultMix(
            {
                "kill -9 route": self._kill_route,
                "SIGSTOP route": self._stop_route,
                "both routes stopped for twice the duplicate window": self._stop_both,
                "both routes killed for twice the duplicate window": self._kill_both,
                "kill -9 NATS": self._kill_nats,
                "SIGSTOP NATS": self._stop_nats,
                "receiver is away": self._receiver_away,
                **{f"receiver: {mood}": self._mood(mood) for mood in MOODS},
            },
            rng,
        )

    async def _kill_route(self) -> None:
        await kill_and_start(self._rng.choice(self.routes))

    async def _stop_route(self) -> None:
        await pause([self._rng.choice(self.routes).pids[0]], _LONG_PAUSE_S)

    async def _stop_both(self) -> None:
        await pause([each.pids[0] for each in self.routes], 2 * _WINDOW_S)

    async def _kill_both(self) -> None:
        send_signal([each.pids[0] for each in self.routes], signal.SIGKILL)
        await asyncio.sleep(2 * _WINDOW_S)
        for each in self.routes:
            await kill_and_start(each)

    async def _kill_nats(self) -> None:
        await kill_and_start(self.server)

    async def _stop_nats(self) -> None:
        await pause([self.server.pids[0]], _PAUSE_S)

    async def _receiver_away(self) -> None:
        await self.receiver.kill()
        await asyncio.sleep(_PAUSE_S)
        await self.receiver.start()

    def _mood(self, mood: str) -> Callable[[], Awaitable[None]]:
        async def fault() -> None:
            self.receiver.mood = mood
            await asyncio.sleep(_MOOD_S)
            self.receiver.mood = "well"

        return fault


async def through_faults(stage: Stage, *, events: int, faults: int) -> float:
    """Store and route everything, with so many faults while it flows. Seconds.

    Raises:
        TargetError: not every event was processed in time.
    """
    began = monotonic()
    stored = Position(partial(_position, stage, "stored"), stage.faults)
    await flow_through(
        stage.faults, stored,
        url=stage.server.url, events=events, faults=faults, payload=payload,
    )  # fmt: skip
    await Position(partial(_position, stage, "posted"), stage.faults).reached(events)
    return monotonic() - began


def payload(number: int) -> bytes:
    """A small event; one in ten goes to the receiver too."""
    return b'{"soc":%d,"number":%d}' % (number % 100, number)


def _posted(data: bytes) -> bool:
    return int(json.loads(data)["soc"]) < 10  # as the rule says


def _position(stage: Stage, rule: str) -> int:
    """How far the rule's owner has come, 0 if nobody says so."""
    found = 0
    for route in stage.routes:
        with contextlib.suppress(OSError):
            page = route.status()[rule]
            if page["state"] == "running":
                found = max(found, int(page["position"]))
    return found


@contextlib.asynccontextmanager
async def staged(directory: Path, *, seed: int, control: str | None = None) -> AsyncIterator[Stage]:
    """Everything started: two processes, honest ones or of a control, and what they need."""
    rng = random.Random(seed)
    program = [str(_BROKEN), control] if control else ["-c", "from gateway.cli import main; main()"]
    with NatsServer(directory / "nats") as server:
        await make_streams(server.url)
        client = await nats.connect(server.url)
        config = StreamConfig(
            _TARGET, subjects=["derived.>"], allow_atomic=True, duplicate_window=_WINDOW_S
        )
        await client.jetstream().add_stream(config)
        await client.close()
        async with Receiver(rng) as receiver:
            routes = [
                RouteServer(
                    directory / f"route-{number}", nats_url=server.url, program=program,
                    rules=_RULES.format(url=receiver.url),
                )
                for number in range(2)
            ]  # fmt: skip
            with contextlib.ExitStack() as stack:
                for route in routes:
                    await asyncio.to_thread(route.start)
                    stack.callback(route.stop)
                yield Stage(routes, server, receiver, rng)


async def verdict(stage: Stage) -> Findings:
    """Stop both processes and compare."""
    for route in stage.routes:
        await asyncio.to_thread(route.stop)
    return await check(
        stage.server.url, _TARGET,
        nats_rule="stored", http_rule="posted", posted=_posted, received=stage.receiver.received,
    )  # fmt: skip


async def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="tidegate-route-faults-") as name:
        async with staged(Path(name), seed=options.seed, control=options.control) as stage:
            seconds = await through_faults(stage, events=options.events, faults=options.faults)
            found = await verdict(stage)
            done = dict(stage.faults.done)
    counted = {
        "events stored": found.stored,
        "derived": found.derived,
        "dead letters": found.letters,
        "requests beyond the first of an event": found.http_repeats,
    }
    kinds = ("lost", "doubled", "disordered", "wrong", "http_lost", "http_ids")
    damage = {kind: getattr(found, kind) for kind in kinds}
    return report_faults(options, "Two processes, two rules", counted, damage, done, seconds)


def main() -> None:
    """The command line."""
    main_of_faults(
        "faults-route",
        "Rules lose and double nothing, through faults.",
        run,
        events=200_000,
        controls=CONTROLS,
    )


if __name__ == "__main__":
    main()

"""Rules run without a process of their own."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway import tasks
from gateway.consumers.reading import ReadingOf
from gateway.consumers.sink import SinkRunner
from gateway.events.rules import Rule
from gateway.routing import RuleTargets, rule_readings
from gateway.stream.link.link import NatsLink


class Counts:
    """What a runner tells whoever counts."""

    def __init__(self) -> None:
        self.repeats = 0

    def written(self, _rule: str, _events: int, _buried: int, _took_s: float) -> None:
        pass

    def repeated(self, _rule: str, *_more: object) -> None:
        self.repeats += 1

    def expired(self, _rule: str, _sequences: int) -> None:
        pass


def runner_of(
    link: NatsLink,
    wanted: Rule,
    owner: str = "me",
    reading_of: ReadingOf | None = None,
    targets: RuleTargets | None = None,
) -> SinkRunner:
    """
    Args:
        link: the connection.
        wanted: the rule.
        owner: of its lease.
        reading_of: where several rules share readers.
        targets: where several rules share batches.
    """
    return SinkRunner(
        wanted,
        (targets or RuleTargets()).of(wanted, owner, link),
        link,
        reading_of=reading_of or rule_readings([wanted], link, random.Random(1)),
        stage="rule",
        observer=Counts(),
        rng=random.Random(1),
        wall_clock=time.time,
    )


@asynccontextmanager
async def running(runner: SinkRunner) -> AsyncIterator[None]:
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        await tasks.end(task)
        assert task.done()
        if not task.cancelled():
            task.result()

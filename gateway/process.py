"""What every process needs: signals, an end with its cause, parts in order, an ops port.

A process is a sequence of `Part`s. They start in that order and stop in the reverse order, and each
stop has an upper bound. A part whose start was cut short is stopped too, so a start can be
cancelled at any await. `Ending` says when the process must end, and why.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from gateway import tasks
from gateway.beats import beat
from gateway.ops.listener import OpsListener
from gateway.telemetry.logs import write_summaries
from gateway.telemetry.summing import WINDOW_S

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_STOP_S: Final = 10.0
"""How long a part may take to stop, unless it says otherwise."""

Work = tuple[str, Coroutine[Any, Any, None]]
"""A task that runs as long as its process: its name, and what it does."""


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Handle these signals in the running loop for as long as the context lasts."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


class Ending:
    """When a process must end: a person or a signal asked for it, or a part failed for good."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._failures: list[BaseException] = []

    @property
    def asked(self) -> bool:
        """Whether the process must end."""
        return self._asked.is_set()

    @property
    def failures(self) -> Sequence[BaseException]:
        """What has failed so far, the first failure first."""
        return tuple(self._failures)

    def ask(self) -> None:
        """End the process. May be called again."""
        self._asked.set()

    def note(self, failure: BaseException) -> None:
        """A part has failed; the process goes on until it is asked to end."""
        self._failures.append(failure)

    def fail(self, failure: BaseException) -> None:
        """A part has failed for good: the process ends with its error."""
        self.note(failure)
        self.ask()

    async def wait(self) -> None:
        """Wait until the process must end."""
        await self._asked.wait()

    async def unless_asked(self, step: Coroutine[Any, Any, None], name: str) -> bool:
        """Run `step`, and cut it short if the process must end before it has finished.

        Returns:
            Whether it finished.

        Raises:
            Exception: what `step` raised.
        """
        ending = asyncio.create_task(self._asked.wait(), name=f"{name}-ending")
        stepping = asyncio.create_task(step, name=name)
        try:
            await asyncio.wait({stepping, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = stepping.done()
            await tasks.end(stepping, ending)
        if finished:
            await stepping
        return finished

    def raise_failure(self) -> None:
        """Raise the first failure, if there is one.

        Raises:
            BaseException: the error of the part that failed first.
        """
        for failure in self._failures:
            raise failure


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a process, as far as its start and its stop are concerned."""

    name: str
    start: Callable[[], Awaitable[None] | None]
    stop: Callable[[], Awaitable[None] | None]
    """Called also if `start` failed or was cut short."""
    stop_within_s: float = _STOP_S


def nothing() -> None:
    """The start, or the stop, of a part that has none."""


class Assembly:
    """Parts that start in one order and stop in the reverse order."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = tuple(parts)
        self._begun = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start all parts.

        Raises:
            Exception: what a part raised; call `stop` then, too.
        """
        for part in self._parts:
            self._begun.push_async_callback(_stop, part)
            await _run(part.start)

    async def stop(self) -> None:
        """Stop every part whose start has begun. A part that fails does not keep the others."""
        await self._begun.aclose()


async def _stop(part: Part) -> None:
    await tasks.bounded(_run(part.stop), f"{part.name}-stop", part.stop_within_s)


async def _run(step: Callable[[], Awaitable[None] | None]) -> None:
    begun = step()
    if begun is not None:
        await begun


class Worker(Protocol):
    """A part that has work to do as long as the process runs."""

    def work(self) -> Iterable[Work]:
        """The tasks of this part, not yet started."""


class Background:
    """Runs the work of all parts, and ends it."""

    def __init__(
        self, workers: Sequence[Worker], *, on_failure: Callable[[BaseException], None]
    ) -> None:
        """
        Args:
            workers: whose work it is.
            on_failure: called with the exception that ended a task, once for each task.
        """
        self._workers = tuple(workers)
        self._crew = tasks.Crew(on_failure)

    def __len__(self) -> int:
        """Tasks that run."""
        return len(self._crew)

    def start(self) -> None:
        """Begin all work."""
        for worker in self._workers:
            for name, work in worker.work():
                self._crew.start(work, name)

    def add(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run one more task."""
        self._crew.start(work, name)

    async def stop(self) -> None:
        """End all work, within 5 s."""
        await self._crew.close()


class LogSummaries:
    """Says each second what was left out of the log, so that a storm's lines need not wait."""

    def work(self) -> Iterable[Work]:
        yield "log-summaries", self._run()

    async def _run(self) -> None:
        while True:
            await beat(WINDOW_S)
            write_summaries()


class OpsPort:
    """The operators' listener at its address."""

    def __init__(
        self, listener: OpsListener, *, host: str, port: int, path: Path | None = None
    ) -> None:
        """
        Args:
            listener: what is served.
            host: the address to bind.
            port: likewise; 0 for a free one.
            path: a socket file to serve on instead.
        """
        self._listener = listener
        self._host = host
        self._path = path
        self.port = port
        """Where it is served, once it has started."""

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OpsListenError: the address cannot be bound.
        """
        if self._path is not None:
            await self._listener.start_unix(self._path)
        else:
            self.port = await self._listener.start(self._host, self.port)

    @property
    def where(self) -> dict[str, int | str]:
        """Where it is served, for the log."""
        return {"ops_port": self.port} if self._path is None else {"ops_socket": str(self._path)}

    async def stop(self) -> None:
        await self._listener.stop()


async def serve(
    assembly: Assembly,
    ending: Ending,
    *,
    on_started: Callable[[], None] = nothing,
    reload: Callable[[], None] = nothing,
) -> None:
    """Run a process of these parts until SIGTERM, SIGINT or its end, then stop them.

    Args:
        assembly: the parts.
        ending: when the process must end.
        on_started: called once all parts have started.
        reload: called at SIGHUP.

    Raises:
        Exception: what kept a part from starting, or the first failure.
    """
    handlers = {**dict.fromkeys(STOP_SIGNALS, ending.ask), signal.SIGHUP: reload}
    with signal_handlers(handlers):
        try:
            if await ending.unless_asked(assembly.start(), "start"):
                on_started()
            await ending.wait()
        finally:
            await assembly.stop()
    ending.raise_failure()

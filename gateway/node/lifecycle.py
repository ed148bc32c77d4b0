"""The life of a gateway process.

    starting --ready--> serving --stop--> draining --> stopped
        |                                                 ^
        +----------------------stop-----------------------+

Devices are listened to from `start` on, and refused with a time until the node serves. A stop in
`serving` drains the node first. SIGTERM or SIGINT stops; a second one cuts the drain short. SIGHUP
reloads. A part that fails for good stops the process too, and its error is raised at the end.
"""

import asyncio
import enum
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from gateway import tasks
from gateway.process import STOP_SIGNALS, Assembly, Ending, signal_handlers

_log = structlog.get_logger(__name__)


class Phase(enum.StrEnum):
    """Where a gateway is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class NodeState:
    """What the pages say of the life of a node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = clock()
        self.phase = Phase.STARTING

    @property
    def uptime_s(self) -> float:
        return self._clock() - self._started_at

    def not_ready(self, trouble: str | None) -> str | None:
        """Why no device should be sent here, or None.

        Args:
            trouble: why nothing is being stored right now, or None.
        """
        if self.phase in {Phase.DRAINING, Phase.STOPPED}:
            return self.phase.value
        if trouble is not None or self.phase is Phase.SERVING:
            return trouble
        return self.phase.value


class Draining(Protocol):
    """Empties a node."""

    @property
    def unsettled(self) -> int:
        """Messages that were received and are not yet settled."""

    def refuse_knocks(self) -> None:
        """Refuse every device from now on."""

    async def run(self) -> None:
        """Send every device away, and settle what it sent."""


class StopOrders:
    """Orders to stop, of operators and of signals: the first drains, the second stops at once."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._signals = 0
        self._now = asyncio.Event()

    def drain(self, now: bool = False) -> None:
        """Give every device a slot elsewhere, then stop. May be called again.

        Args:
            now: stop at once, also if a drain goes on already.
        """
        if now and not self._now.is_set():
            _log.warning("stopping_now")
            self._now.set()
        self._ending.ask()

    def on_signal(self) -> None:
        """SIGTERM or SIGINT: the first drains, the second stops at once.

        A drain that was asked for on the ops port does not count: a service manager sends its
        SIGTERM after the drain of a hook that runs before the stop.
        """
        self._signals += 1
        self.drain(now=self._signals > 1)

    async def wait_now(self) -> None:
        """Wait until the process must stop at once."""
        await self._now.wait()


class Lifecycle:
    """Starts, serves, drains and stops."""

    def __init__(
        self,
        assembly: Assembly,
        *,
        state: NodeState,
        ending: Ending,
        orders: StopOrders,
        storage_ready: Callable[[], Coroutine[Any, Any, None]],
        on_serving: Callable[[], None],
        draining: Draining,
        reload: Callable[[], None],
    ) -> None:
        """
        Args:
            assembly: the parts in their order.
            state: shown on the pages.
            ending: when the process must end.
            orders: to stop.
            storage_ready: waits until messages can be stored for the first time.
            on_serving: called once devices are admitted.
            draining: empties the node.
            reload: called at SIGHUP.
        """
        self._assembly = assembly
        self._state = state
        self._ending = ending
        self._orders = orders
        self._storage_ready = storage_ready
        self._on_serving = on_serving
        self.draining = draining
        self.reload = reload
        self._stopping: asyncio.Task[None] | None = None

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serve until a signal, then stop in order.

        Args:
            on_ready: called once devices are admitted.

        Raises:
            Exception: whatever kept the gateway from starting or running.
        """
        handlers = {
            **dict.fromkeys(STOP_SIGNALS, self._orders.on_signal),
            signal.SIGHUP: self.reload,
        }
        with signal_handlers(handlers):
            try:
                await self._serve(on_ready)
            finally:
                await self.stop()
        self._ending.raise_failure()

    async def _serve(self, on_ready: Callable[[], None] | None) -> None:
        """Start and go on until a stop is asked for or a part fails."""
        unless_asked = self._ending.unless_asked
        started = await unless_asked(self.start(), "start")
        serving = started and await unless_asked(self.ready(), "ready")
        if serving and on_ready is not None:
            on_ready()
        await self._ending.wait()

    async def start(self) -> None:
        """Start every part; returns when devices are listened to.

        Raises:
            Exception: what kept a part from starting. Call `stop` then, too.
        """
        await self._assembly.start()

    async def ready(self) -> None:
        """Wait until devices are admitted.

        Raises:
            Exception: the failure that will keep the gateway from it.
        """
        ready = await self._ending.unless_asked(self._storage_ready(), "storage-ready")
        self._ending.raise_failure()
        if ready and self._state.phase is Phase.STARTING:
            self._state.phase = Phase.SERVING
            self._on_serving()

    async def stop(self) -> None:
        """Stop in order: no new devices, lanes flushed, devices told, NATS last.

        Every step has an upper bound. Called again, it waits for the stop that goes on.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stop")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._ending.ask()
        if self._state.phase is Phase.SERVING:
            self._state.phase = Phase.DRAINING
            await self._drain()
        self._state.phase = Phase.STOPPED
        await self._assembly.stop()

    async def _drain(self) -> None:
        """Drain, unless a stop at once is asked for. A drain that fails does not stop the stop."""
        self.draining.refuse_knocks()
        drain = asyncio.create_task(self.draining.run(), name="drain")
        now = asyncio.create_task(self._orders.wait_now(), name="stop-now")
        await asyncio.wait({drain, now}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            _log.warning("drain_cut_short", unsettled=self.draining.unsettled)
        await tasks.end(drain, now)
        if drain.done() and not drain.cancelled() and (failure := drain.exception()):
            _log.error("drain_failed", error=repr(failure))
            self._ending.note(failure)

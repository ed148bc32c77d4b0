"""The node's flow: R follows the node's health, and a stream that stores nothing stops admission.

`LoopLag` measures how late the event loop is, `RateLoop` feeds the rate controller with it and with
the signals of the publishing side, and `HoldLoop` holds and releases devices and admission.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import structlog

from gateway.admission.calendar import Calendar
from gateway.admission.controller import RateController
from gateway.admission.desk import AdmissionDesk
from gateway.beats import beat
from gateway.edge.arrivals import Waiting
from gateway.edge.device.hold import StreamHold
from gateway.edge.gate import DeviceGate
from gateway.process import Work
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_OBSERVE_S: Final = 1.0
_LAG_PROBE_S: Final = 0.05
_CALM_PROBE_S: Final = 0.25
_BUSY_SHARE: Final = 0.05
"""A process that used this share of a core since the last probe is probed more often."""
_STIRRED_S: Final = 0.01
"""So is one whose probe was this late: a tenth of the lag at which R begins to fall."""
_WATCH_S: Final = 0.1
_CALM_WATCH_S: Final = 0.25


def probe_s(late_s: float, busy_share: float) -> float:
    """After how long to probe the event loop again. Pure.

    R is decided once a second. A load that makes the loop late goes on for longer than that, and
    uses the core, so it is seen four times a second at least, and twenty times from the first sign
    on. In a calm process, a single stall that is shorter than the time between two probes can pass
    unseen.

    Args:
        late_s: how late the last probe was.
        busy_share: the share of a core that the process used since the probe before.
    """
    busy = late_s >= _STIRRED_S or busy_share >= _BUSY_SHARE
    return _LAG_PROBE_S if busy else _CALM_PROBE_S


class LoopLag:
    """How late the event loop runs what is due: the surest sign that its core is busy."""

    def __init__(self, used: Callable[[], float] = time.process_time) -> None:
        """
        Args:
            used: CPU seconds of this process so far.
        """
        self._used = used
        self._worst_s = 0.0
        self.last_s = 0.0
        """The worst lag of the last second that was looked at."""

    def register_gauges(self, metrics: Metrics) -> None:
        metrics.gauge(
            "tidegate_loop_lag_seconds",
            "How late the event loop was at worst, within a second.",
            lambda: self.last_s,
        )

    def take(self) -> float:
        """The worst lag since the last call, seconds."""
        self.last_s, self._worst_s = self._worst_s, 0.0
        return self.last_s

    def work(self) -> Iterable[Work]:
        yield "loop-lag", self._run()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        every_s, began, used = _LAG_PROBE_S, loop.time(), self._used()
        while True:
            due = await beat(every_s)
            now, used_before, used = loop.time(), used, self._used()
            late_s = now - due
            self._worst_s = max(self._worst_s, late_s)
            every_s = probe_s(late_s, (used - used_before) / max(now - began, _LAG_PROBE_S))
            began = now


class Proposals(Protocol):
    """Takes the R that this node's health allows."""

    @property
    def calendar(self) -> Calendar:
        """Where slots come from, at the R that is in force."""

    def propose(self, rate_per_s: float) -> None:
        """Say how many devices a second this node could admit."""


class RateLoop:
    """Keeps R, and the desk's meter, in step with the node's health."""

    def __init__(
        self,
        controller: RateController,
        *,
        signals: Callable[[], dict[str, float]],
        lag: LoopLag,
        membership: Proposals,
        desk: AdmissionDesk[Waiting],
        gate: DeviceGate,
        follower: Callable[[Mapping[str, float], float], object],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            controller: decides R.
            signals: present signals of the publishing side.
            lag: of the event loop.
            membership: where R is proposed, and whose calendar has the R in force.
            desk: whose meter follows it.
            gate: lets devices in that wait for a slot.
            follower: hears the signals and the time too, for a rate of its own.
            clock: local time, seconds.
        """
        self._controller = controller
        self._signals = signals
        self._lag = lag
        self._membership = membership
        self._desk = desk
        self._gate = gate
        self._follower = follower
        self._clock = clock

    def calendar_changed(self) -> None:
        """R has changed, or there are new slots."""
        self._desk.set_rate(self._membership.calendar.rate_per_s, self._clock())
        self._gate.pump()

    def work(self) -> Iterable[Work]:
        yield "admission-rate", self._run()

    async def _run(self) -> None:
        while True:
            await beat(_OBSERVE_S)
            self.observe()

    def observe(self) -> None:
        """Decide R anew."""
        signals = {**self._signals(), "loop_lag": self._lag.take()}
        now = self._clock()
        before = self._controller.rate_per_s
        rate_per_s = self._controller.observe(signals, now)
        if rate_per_s < before:
            _log.warning(
                "admission_slowed",
                rate_per_s=round(rate_per_s, 1),
                limited_by=self._controller.limited_by,
            )
        self._follower(signals, now)
        self._membership.propose(rate_per_s)
        self._desk.set_rate(self._membership.calendar.rate_per_s, now)


class Storage(Protocol):
    """Where messages are stored."""

    @property
    def trouble(self) -> str | None:
        """Why nothing is being stored right now, or None."""


class HoldLoop:
    """Holds devices and admission while nothing is being stored."""

    def __init__(
        self,
        storage: Storage,
        *,
        hold: StreamHold,
        desk: AdmissionDesk[Waiting],
        gate: DeviceGate,
        pending: Callable[[], int],
    ) -> None:
        """
        Args:
            storage: where messages are stored.
            hold: of the sessions.
            desk: admits nobody while it is held.
            gate: refuses the knocks that wait when a hold begins.
            pending: the messages that are not settled yet.
        """
        self._storage = storage
        self._pending = pending
        self._hold = hold
        self._desk = desk
        self._gate = gate

    def begin(self) -> None:
        """Admit nobody until the streams are there. Called before the first knock."""
        trouble = self._storage.trouble
        if trouble is not None:
            self._gate.hold()

    def work(self) -> Iterable[Work]:
        yield "stream-hold", self._run()

    async def stop(self) -> None:
        """End a release that goes on."""
        await self._hold.close()

    async def _run(self) -> None:
        while True:
            # While nothing is being stored, no message can fail.
            calm = not self._desk.held and not self._pending()
            await beat(_CALM_WATCH_S if calm else _WATCH_S)
            self.look()

    def look(self) -> None:
        """Admit nobody while nothing is being stored; admit again when it is."""
        trouble = self._storage.trouble
        if trouble is None:
            if self._desk.held:
                _log.info("admission_released")
                self._desk.release()
            self._hold.disengage()
            return
        self._hold.engage("stream")
        if not self._desk.held:
            _log.warning("admission_held", reason=trouble)
            self._gate.hold()

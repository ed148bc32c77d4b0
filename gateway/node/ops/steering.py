"""What can be changed while the gateway runs: R, its floor, the burst and the level of the log.

What is in force is an operator's override as long as it lasts, else the settings. Both may change:
operators order overrides, on all nodes, and SIGHUP reads the settings again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.admission.controller import RateController
from gateway.admission.desk import AdmissionDesk
from gateway.beats import beat
from gateway.cluster.overrides import Override, Overrides
from gateway.edge.arrivals import Waiting
from gateway.node.cluster.membership import Membership, Reach
from gateway.process import Work
from gateway.settings import Settings
from gateway.telemetry.logs import set_level

_log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.25
"""Overrides of other nodes, and ends of overrides, are noticed about within this time."""


@dataclass(frozen=True, slots=True)
class Live:
    """The values of everything that can change live."""

    rate_per_s: float
    rate_floor_per_s: float
    burst: float
    log_level: str

    @classmethod
    def of(cls, settings: Settings) -> "Live":
        """What the settings say."""
        admission = settings.admission
        return cls(
            admission.rate_per_s, admission.rate_floor_per_s, admission.burst, settings.log.level
        )

    def under(self, overrides: Mapping[str, Override]) -> "Live":
        """What is in force with these overrides."""
        values = {name: override.value for name, override in overrides.items()}
        return Live(**{name: values.get(name, getattr(self, name)) for name in self.__slots__})


class Steering:
    """Sets the parts of this node to what is in force."""

    def __init__(
        self,
        settings: Settings,
        overrides: Overrides,
        *,
        controller: RateController,
        desk: AdmissionDesk[Waiting],
        membership: Membership,
        clock: Callable[[], float],
        fleet_time: Callable[[], float],
    ) -> None:
        """
        Args:
            settings: what holds without overrides.
            overrides: what operators have ordered.
            controller: decides R between floor and ceiling.
            desk: its meter has the burst.
            membership: its calendar has the burst, and takes the R that this node proposes.
            clock: local time, seconds.
            fleet_time: Unix time in seconds, for the ends of overrides.
        """
        self._wanted = self.in_force = Live.of(settings)
        self._overrides = overrides
        self._controller = controller
        self._desk = desk
        self._membership = membership
        self._clock = clock
        self._fleet_time = fleet_time

    async def steer(self, values: Mapping[str, float | str], for_s: float, by: str) -> str:
        """Change settings on all nodes for a time. Says how far that went.

        Args:
            values: by the names of `Live`.
            for_s: seconds from now.
            by: who orders it.
        """
        until = self._fleet_time() + for_s
        return await self._spread(
            Override(name, value, until, by=by) for name, value in values.items()
        )

    async def unsteer(self, by: str) -> str:
        """End all overrides on all nodes. Says how far that went."""
        known = self._overrides.in_force().values()
        return await self._spread(
            Override(fact.name, fact.value, fact.until, by=by, lifted=True) for fact in known
        )

    async def _spread(self, overrides: Iterable[Override]) -> Reach:
        facts = [self._overrides.state(override) for override in overrides]
        self.apply()
        return await self._membership.steer(facts)

    def rebase(self, settings: Settings) -> None:
        """The settings were read again: this is what holds without overrides now."""
        self._wanted = Live.of(settings)
        self.apply()

    def apply(self) -> None:
        """Set the parts to what is in force, if that has changed."""
        wanted, before = self._wanted.under(self._overrides.in_force()), self.in_force
        if wanted == before:
            return
        self.in_force = wanted
        names = [
            name for name in wanted.__slots__ if getattr(wanted, name) != getattr(before, name)
        ]
        _log.warning("steered", **{name: getattr(wanted, name) for name in names})
        self._controller.steer(floor_per_s=wanted.rate_floor_per_s, ceiling_per_s=wanted.rate_per_s)
        self._membership.set_burst(wanted.burst)
        self._desk.set_burst(wanted.burst)
        self._membership.propose(self._controller.rate_per_s)
        self._desk.set_rate(self._membership.calendar.rate_per_s, self._clock())
        if wanted.log_level != before.log_level:
            set_level(wanted.log_level)

    def work(self) -> Iterable[Work]:
        yield "steering", self._run()

    async def _run(self) -> None:
        while True:
            await beat(_LOOK_S)
            self.apply()

    def status(self) -> dict[str, Any]:
        """For the status page: what operators have changed, until when, and who did."""
        return {
            name: {"value": fact.value, "until": fact.until, "by": fact.by}
            for name, fact in self._overrides.in_force().items()
        }

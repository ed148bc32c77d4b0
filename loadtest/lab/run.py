"""One run of the lab: a fleet of vehicles, and what is observed of it. On gevent."""

import random
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import gevent
import gevent.ssl

from loadtest.devices.credentials import Issuer
from loadtest.devices.gevent_link import Refused
from loadtest.devices.policies import make_policy
from loadtest.devices.vehicle import Vehicle, VehiclePlan
from loadtest.lab import machine
from loadtest.lab.ground import Ground, Visited
from loadtest.lab.observations import Observations
from loadtest.lab.scenario import Scenario

_SAMPLE_S: Final = 0.5
_LIFETIME_S: Final = 3_600
_FIRST_RETRY_MS: Final = 2_000
"""What a vehicle assumes until a welcome tells it."""


class ObservingWatcher:
    """Writes what becomes of vehicles into the observations of a run."""

    def __init__(self, observed: Observations) -> None:
        self._observed = observed

    def knocked(self) -> None:
        self._observed.knocks.append(self._observed.clock())

    def welcomed(self, knocking_s: float, waited_s: float, late_s: float | None) -> None:
        del knocking_s
        observed = self._observed
        observed.admissions.append(observed.clock())
        observed.waits.append(waited_s)
        if late_s is not None:
            observed.lateness.append(late_s)

    def refused(self, refusal: Refused, knocking_s: float, *, dishonoured: bool) -> None:
        del knocking_s
        self._observed.refusals.append((self._observed.clock(), refusal.answer.status))
        self._observed.dishonoured += dishonoured

    def failed(self, why: str, knocking_s: float) -> None:
        del why, knocking_s
        self._observed.failures.append(self._observed.clock())

    def acked(self, latency_s: float) -> None:
        self._observed.acked(latency_s)

    def lost(self) -> None:
        self._observed.cuts.append(self._observed.clock())


class Credentials:
    """Mints the credentials of a run's vehicles."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.together_until: float | None = None
        """Unix time at which all that are minted from now on expire."""

    def of(self, name: str) -> Callable[[], str]:
        """A function that mints for one vehicle."""

        def mint() -> str:
            until = self.together_until
            lifetime_s = _LIFETIME_S if until is None else int(until) - int(time.time())
            return self.issuer.token(name, lifetime_s=lifetime_s)

        return mint


class Run:
    """One fleet and one storm."""

    def __init__(
        self,
        scenario: Scenario,
        policy: str,
        issuer: Issuer,
        urls: Sequence[str],
        ground: Ground | Visited,
        seed: int,
    ) -> None:
        """
        Args:
            scenario: what happens.
            policy: when vehicles knock.
            issuer: mints their credentials.
            urls: of the gateways.
            ground: the servers.
            seed: of everything random.
        """
        began = time.monotonic()
        self.scenario = scenario
        self.policy = policy
        self.ground = ground
        self.observed = Observations(lambda: time.monotonic() - began)
        self.vehicles: list[Vehicle] = []
        self.credentials = Credentials(issuer)
        self._urls = urls
        self._seed = seed
        self._context = _context(ground.ca_file)
        self._name = secrets.token_hex(3)
        """In the ids of its vehicles, so that no stream has seen them before."""

    @classmethod
    def on_our_ground(cls, scenario: Scenario, policy: str, ground: Ground, seed: int) -> Self:
        """A run on servers that the lab started."""
        return cls(scenario, policy, ground.issuer, ground.urls, ground, seed)

    @property
    def inside(self) -> int:
        """How many vehicles have a session."""
        return sum(vehicle.inside for vehicle in self.vehicles)

    @property
    def caught_up(self) -> bool:
        """Whether the outboxes hold no more than was produced in the last moments."""
        pending = sum(vehicle.pending for vehicle in self.vehicles)
        return pending <= self.scenario.devices * max(0.1, self.scenario.message_rate)

    def make_vehicle(self) -> Vehicle:
        """One more vehicle of the fleet."""
        number = len(self.vehicles)
        name = f"veh-{self._name}-{number}"
        rng = random.Random(f"{self._seed}-{number}")
        plan = VehiclePlan(
            urls=self._urls,
            token=self.credentials.of(name),
            policy=make_policy(self.policy, rng, first_retry_ms=_FIRST_RETRY_MS),
            message_rate=self.scenario.message_rate,
            rng=rng,
            context=self._context,
        )
        vehicle = Vehicle(name, plan, ObservingWatcher(self.observed))
        self.vehicles.append(vehicle)
        return vehicle

    def forgers(self) -> list[gevent.Greenlet]:
        """Greenlets that knock with forged credentials until they are killed."""
        share = self.scenario.forged_share
        count = round(self.scenario.devices * share / (1 - share))
        unobserved = ObservingWatcher(Observations(time.monotonic))
        made = []
        for number in range(count):
            name, rng = f"forger-{number}", random.Random(number)
            plan = VehiclePlan(
                urls=self._urls,
                token=lambda name=name: self.credentials.issuer.forged(name),  # type: ignore[misc]
                policy=make_policy("full-jitter", rng),
                begins_at_once=False,
                rng=rng,
                context=self._context,
            )
            made.append(gevent.spawn(Vehicle(name, plan, unobserved).run))
        return made

    def sample_for_ever(self) -> None:
        """Sample gateways and machine, until the greenlet is killed."""
        while True:
            sample = self.ground.sample(self.observed.clock())
            if sample is not None:
                self.observed.samples.append(sample)
            load = machine.sample(self.observed.clock())
            if load is not None:
                self.observed.machine.append(load)
            gevent.sleep(_SAMPLE_S)


def _context(ca_file: Path | None) -> gevent.ssl.SSLContext | None:
    if ca_file is None:
        return None
    return gevent.ssl.create_default_context(cafile=str(ca_file))

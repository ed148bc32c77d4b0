"""Devices in virtual time before an admission desk: the harness of its property tests."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.observer import AdmissionObserver
from gateway.admission.outcome import Admit, Claim, Refuse
from gateway.admission.ticket import TicketOffice, device_hash

SECRET = b"s" * 32


class Counting(AdmissionObserver):
    def __init__(self):
        self.counts = {}

    def __getattribute__(self, name):
        if name.startswith("_") or name == "counts" or not hasattr(AdmissionObserver, name):
            return super().__getattribute__(name)

        def count(*_args):
            self.counts[name] = self.counts.get(name, 0) + 1

        return count


@dataclass(eq=False)
class Device:
    name: str
    arrives: float
    tenant: str = "default"
    group: str = "default"
    urgent: bool = False
    known: bool = False
    tickets: bool = True
    """Whether it shows its ticket, or only honours the time."""
    returns: bool = True
    lateness: float = 0.2
    """At most this late for its slot."""
    pending: bool = False
    """In the lot."""
    admitted_at: float | None = None
    slots: list = field(default_factory=list)
    knocks: int = 0
    ticket: str = ""
    reasons: list = field(default_factory=list)

    def claim(self):
        holder = device_hash(self.tenant, self.name)
        return Claim(self.tenant, self.group, holder, self.urgent, self.known, self.ticket)


class Town:
    """A desk and the devices that come to it."""

    def __init__(self, *, rate=500.0, burst=100.0, seed=1, calendar=None, **settings):
        self.rng = random.Random(seed)
        self.now = 0.0
        self.observer = Counting()
        self.calendar = calendar or SlotCalendar(
            CalendarSettings(burst=burst, horizon_s=settings.get("horizon_s", 900.0)),
            rate_per_s=rate,
            now=0.0,
        )
        self.office = TicketOffice([SECRET])
        self.desk = AdmissionDesk(
            DeskSettings(burst=burst, **settings),
            calendar=self.calendar,
            office=self.office,
            observer=self.observer,
            rng=self.rng,
            now=0.0,
        )
        self.admissions = []
        self._events = []
        self._order = itertools.count()

    def at(self, time, action, *args):
        heapq.heappush(self._events, (time, next(self._order), action, args))

    def add(self, devices):
        for device in devices:
            self.at(device.arrives, self.knock, device)

    def run(self, until=float("inf")):
        while True:
            poll_at = self.desk.next_poll_at()
            next_at = self._events[0][0] if self._events else float("inf")
            if poll_at is not None and poll_at <= next_at:
                if poll_at > until:
                    break
                self.now = max(self.now, poll_at)
                self.settle(self.desk.poll(self.now))
                if not self.desk.parked and not self._events:
                    break
                # A promised device is not yet due by the meter: let time pass.
                if self.desk.next_poll_at() is not None and self.desk.next_poll_at() <= self.now:
                    self.now += 1e-6
                continue
            if not self._events or next_at > until:
                break
            self.now, _, action, args = heapq.heappop(self._events)
            action(*args)
        return self

    def knock(self, device):
        if device.admitted_at is not None or device.pending:
            return
        device.knocks += 1
        device.pending = True
        outcome = self.desk.knock(device.claim(), device, self.now)
        self.settle([(device, outcome)] if outcome is not None else [])

    def settle(self, outcomes):
        for device, outcome in outcomes:
            device.pending = False
            if isinstance(outcome, Admit):
                device.admitted_at = self.now
                self.admissions.append(self.now)
                continue
            assert isinstance(outcome, Refuse)
            device.reasons.append(outcome.reason)
            if outcome.ticket:
                device.slots.append(self.now + outcome.retry_s)
                if device.tickets:
                    device.ticket = outcome.ticket
            if device.returns:
                late = self.rng.uniform(0, device.lateness)
                self.at(self.now + outcome.retry_s + late, self.knock, device)


def fleet(count, spread, seed=1, **options):
    """Devices whose first knock is uniform in [0, spread]."""
    rng = random.Random(seed)
    return [Device(f"veh-{n}", rng.uniform(0, spread), **options) for n in range(count)]


def worst_excess(times, rate, burst):
    """Over all windows: admissions in it, less rate * width + burst. At most 0 is right."""
    worst = float("-inf")
    lowest = float("inf")  # of index - rate * time, over window starts
    for index, time in enumerate(sorted(times)):
        lowest = min(lowest, index - rate * time)
        worst = max(worst, index + 1 - rate * time - lowest - burst)
    return worst

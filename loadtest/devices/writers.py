"""Devices that write a known sequence and record what was acknowledged, through all faults."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Final

from loadtest.devices.credentials import Issuer
from loadtest.devices.payloads import payload
from loadtest.devices.policies import make_policy
from loadtest.devices.storm import Route, StormDevice, StormLog, Visit
from loadtest.devices.wire import TEXT, ack_of, is_hold, is_welcome, masked_frame, resume_of

_FIRST_RETRY_MS: Final = 200
_FRAME_MESSAGES: Final = 100


@dataclass(frozen=True, slots=True)
class WriterPlan:
    """How writers behave.

    Attributes:
        messages: of each outbox.
        window: messages unacknowledged at most.
        honest_age: False for a clock that says nothing is old.
        outboxes: of each device; every connection sends from the next one.
        forgets: a device may come back with a copy of its outbox that lacks the settlement of so
            many messages.
    """

    messages: int
    window: int = 100
    honest_age: bool = True
    outboxes: tuple[str, ...] = ("w",)
    forgets: int = 0


class _Outbox:
    """What a device has of one outbox."""

    __slots__ = ("acked", "highest", "label", "limit", "name", "sent", "unacked_since")

    def __init__(self, name: str, label: str) -> None:
        self.name = name
        self.label = label
        """The name of the outbox for the checker."""
        self.acked = 0
        self.sent = 0
        self.highest = 0
        """The highest seq that was ever sent."""
        self.limit = 0
        self.unacked_since = monotonic()


class Writer(Visit):
    """One device: sends 1..n of each outbox in order, and believes an ack."""

    def __init__(
        self,
        name: str,
        token: str,
        ports: Sequence[int],
        *,
        plan: WriterPlan,
        log: StormLog,
        on_done: Callable[[], None],
        rng: Random,
    ) -> None:
        """
        Args:
            name: of the device.
            token: its credential.
            ports: of the gateways.
            plan: what it writes.
            log: of the run.
            on_done: called when all it has to write is acknowledged.
            rng: for everything random.
        """
        policy = make_policy("ticket", rng, first_retry_ms=_FIRST_RETRY_MS)
        self.device = StormDevice(name, token, Route.shuffled(ports, rng), policy, log, self)
        self._plan = plan
        self._on_done = on_done
        self._rng = rng
        alone = len(plan.outboxes) == 1
        self._outboxes = [
            _Outbox(each, name if alone else f"{name}/{each}") for each in plan.outboxes
        ]
        self._turn = -1
        self._current = self._outboxes[0]
        self._held = False
        self.wanted = plan.messages
        """The last seq of each outbox that this device has to send so far."""

    @property
    def acked(self) -> int:
        """Messages acknowledged, of all outboxes."""
        return sum(each.acked for each in self._outboxes)

    @property
    def settled(self) -> dict[str, int]:
        """The last seq acknowledged of each outbox, by the checker's name for it."""
        return {each.label: each.acked for each in self._outboxes}

    @property
    def done(self) -> bool:
        return all(each.acked >= self.wanted for each in self._outboxes)

    def produce(self, messages: int) -> None:
        """Write so many more: they are sent as credit allows, and kept until then."""
        self.wanted += messages
        self._fill()

    def greeting(self) -> bytes:
        waiting = [each for each in self._outboxes if each.acked < self.wanted] or self._outboxes
        self._turn += 1
        box = self._current = waiting[self._turn % len(waiting)]
        age_ms = 0
        if self._plan.honest_age and box.acked < box.sent:
            age_ms = int((monotonic() - box.unacked_since) * 1000)
        oldest, sent = box.acked + 1, b""
        if self._plan.forgets:
            forgotten = self._rng.choice((0, self._rng.randint(1, self._plan.forgets)))
            oldest = max(1, oldest - forgotten)
            if not forgotten and self._rng.random() < 0.5:
                sent = b',"sent":%d' % box.highest
        return masked_frame(
            TEXT,
            b'{"hello":{"outbox":"%b","oldest":%d,"age_ms":%d%b}}'
            % (box.name.encode(), oldest, age_ms, sent),
        )

    def heard(self, text: bytes) -> None:
        box = self._current
        settled = ack_of(text)
        if settled is not None:
            seq, credit = settled
            self._held = False
            self._settle(seq)
            box.limit = max(box.limit, seq + credit)
            self._fill()
        elif is_welcome(text):
            # The stream says what is settled; an older copy may have to send some of it again.
            box.sent, credit = resume_of(text)
            self._settle(box.sent)
            box.limit = box.sent + credit
            self._held = False
            self._fill()
        elif is_hold(text):
            self._held = True

    def _settle(self, seq: int) -> None:
        box = self._current
        if seq > box.acked:
            box.acked = seq
            box.unacked_since = monotonic()
            if self.done:
                self._on_done()
            elif seq >= self.wanted:
                self.device.abort()  # the next connection sends from another outbox

    def _fill(self) -> None:
        connection, box = self.device.connection, self._current
        if connection is None or self._held:
            return
        end = min(box.limit, max(box.acked, box.sent) + self._plan.window, self.wanted)
        while box.sent < end:
            last = min(end, box.sent + _FRAME_MESSAGES)
            if box.sent == box.acked:
                box.unacked_since = monotonic()
            messages = b",".join(
                b'{"seq":%d,"type":"t","data":%b}' % (seq, payload(box.label, seq))
                for seq in range(box.sent + 1, last + 1)
            )
            box.sent = last
            box.highest = max(box.highest, last)
            connection.write(masked_frame(TEXT, b"[%b]" % messages))


class Writers:
    """The writers of one run, and their log."""

    def __init__(
        self, issuer: Issuer, count: int, ports: Sequence[int], plan: WriterPlan, seed: int = 0
    ) -> None:
        """
        Args:
            issuer: mints their credentials.
            count: devices.
            ports: of the gateways.
            plan: what each writes.
            seed: of everything random.
        """
        self.log = StormLog()
        self.all_done = asyncio.Event()
        """Set once everything that the plan names is acknowledged."""
        self._left = count
        self.each = [
            Writer(
                name, issuer.token(name), ports, plan=plan, log=self.log,
                on_done=self._count_done, rng=Random(seed * 100_000 + number),
            )
            for number, name in enumerate(f"veh-{n}" for n in range(count))
        ]  # fmt: skip

    @property
    def acked(self) -> int:
        """Messages acknowledged so far."""
        return sum(writer.acked for writer in self.each)

    @property
    def produced(self) -> int:
        """Messages that there are to write so far, with one outbox each."""
        return sum(writer.wanted for writer in self.each)

    @property
    def settled(self) -> dict[str, int]:
        """The last seq acknowledged of each outbox, by the checker's name for it."""
        return {label: seq for writer in self.each for label, seq in writer.settled.items()}

    @property
    def all_inside(self) -> bool:
        return all(writer.device.inside for writer in self.each)

    def begin(self) -> None:
        """Let all of them knock."""
        for writer in self.each:
            writer.device.begin()

    def stop(self) -> None:
        """End all of them."""
        for writer in self.each:
            writer.device.stop()

    def _count_done(self) -> None:
        self._left -= 1
        if not self._left:
            self.all_done.set()

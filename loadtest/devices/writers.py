"""Devices that write a known sequence and record what was acknowledged, through all faults."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Final

from loadtest.checker import payload
from loadtest.devices.policies import make_policy
from loadtest.devices.storm import StormDevice, StormLog
from loadtest.devices.wire import masked_frame

_ACK: Final = re.compile(rb'\{"ack":(\d+),"credit":(\d+)\}')
_RESUME: Final = re.compile(rb'"seq":(\d+)')
_CREDIT: Final = re.compile(rb'"credit":(\d+)')
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
        """Who the checker takes it for."""
        self.acked = 0
        self.sent = 0
        self.highest = 0
        """The highest seq it ever sent."""
        self.limit = 0
        self.unacked_since = monotonic()


class Writer(StormDevice):
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
        policy = make_policy("ticket", rng, first_retry_ms=200)
        super().__init__(name, token, ports, policy, log, lambda: None, rng)
        self._plan = plan
        self._on_done = on_done
        self._rng = rng
        alone = len(plan.outboxes) == 1
        self._outboxes = [
            _Outbox(each, name if alone else f"{name}/{each}") for each in plan.outboxes
        ]
        self._turn = -1
        self._now = self._outboxes[0]
        self._held = False
        self.wanted = plan.messages
        """The last seq of each outbox that this device has to send so far."""

    @property
    def acked(self) -> int:
        """Messages acknowledged, of all outboxes."""
        return sum(each.acked for each in self._outboxes)

    @property
    def settled(self) -> dict[str, int]:
        """The last seq acknowledged, by whom the checker takes the outbox for."""
        return {each.label: each.acked for each in self._outboxes}

    @property
    def done(self) -> bool:
        return all(each.acked >= self.wanted for each in self._outboxes)

    def produce(self, messages: int) -> None:
        """So many more: sent as credit allows, kept till then."""
        self.wanted += messages
        self._fill()

    def greeting(self) -> bytes:
        waiting = [each for each in self._outboxes if each.acked < self.wanted] or self._outboxes
        self._turn += 1
        box = self._now = waiting[self._turn % len(waiting)]
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
            1,
            b'{"hello":{"outbox":"%b","oldest":%d,"age_ms":%d%b}}'
            % (box.name.encode(), oldest, age_ms, sent),
        )

    def heard(self, text: bytes) -> None:
        box = self._now
        if text.startswith(b'{"welcome"'):
            resume, credit = _RESUME.search(text), _CREDIT.search(text)
            assert resume is not None
            assert credit is not None
            # The stream's own word for what is settled; a copy may have to send more again.
            box.sent = int(resume[1])
            self._settle(box.sent)
            box.limit = box.sent + int(credit[1])
            self._held = False
            self._fill()
        elif text.startswith(b'{"ack"'):
            found = _ACK.match(text)
            assert found is not None
            self._held = False
            self._settle(int(found[1]))
            box.limit = max(box.limit, int(found[1]) + int(found[2]))
            self._fill()
        elif text.startswith(b'{"hold"'):
            self._held = True

    def _settle(self, seq: int) -> None:
        box = self._now
        if seq > box.acked:
            box.acked = seq
            box.unacked_since = monotonic()
            if self.done:
                self._on_done()
            elif seq >= self.wanted and self.transport is not None:
                self.transport.abort()  # the next connection sends from another outbox

    def _fill(self) -> None:
        transport, box = self.transport, self._now
        if transport is None or not self.inside or self._held:
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
            transport.write(masked_frame(1, b"[%b]" % messages))

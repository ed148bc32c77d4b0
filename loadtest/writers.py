"""Devices that write a known sequence and record what was acknowledged, through all faults."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Final

from loadtest.checker import payload
from loadtest.policies import make_policy
from loadtest.storm import StormDevice, StormLog
from loadtest.wire import masked_frame

_ACK: Final = re.compile(rb'\{"ack":(\d+),"credit":(\d+)\}')
_RESUME: Final = re.compile(rb'"seq":(\d+)')
_CREDIT: Final = re.compile(rb'"credit":(\d+)')
_FRAME_MESSAGES: Final = 100


@dataclass(frozen=True, slots=True)
class WriterPlan:
    """How writers behave. `honest_age` False tells the gateway that nothing is old: a control."""

    messages: int
    window: int = 100
    honest_age: bool = True


class Writer(StormDevice):
    """One device: sends 1..n in order, and believes an ack."""

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
        self._sent = 0
        self._limit = 0
        self._held = False
        self._unacked_since = monotonic()
        self.acked = 0
        self.wanted = plan.messages
        """The last seq this device has to send so far."""

    @property
    def done(self) -> bool:
        return self.acked >= self.wanted

    def produce(self, messages: int) -> None:
        """So many more: sent as credit allows, kept till then."""
        self.wanted += messages
        self._fill()

    def greeting(self) -> bytes:
        age_ms = 0
        if self._plan.honest_age and self.acked < self._sent:
            age_ms = int((monotonic() - self._unacked_since) * 1000)
        return masked_frame(
            1,
            b'{"hello":{"outbox":"w","oldest":%d,"age_ms":%d}}' % (self.acked + 1, age_ms),
        )

    def heard(self, text: bytes) -> None:
        if text.startswith(b'{"welcome"'):
            resume, credit = _RESUME.search(text), _CREDIT.search(text)
            assert resume is not None
            assert credit is not None
            # The stream's own word for what is settled.
            self._settle(int(resume[1]))
            self._sent = self.acked
            self._limit = self.acked + int(credit[1])
            self._held = False
            self._fill()
        elif text.startswith(b'{"ack"'):
            found = _ACK.match(text)
            assert found is not None
            self._held = False
            self._settle(int(found[1]))
            self._limit = max(self._limit, int(found[1]) + int(found[2]))
            self._fill()
        elif text.startswith(b'{"hold"'):
            self._held = True

    def _settle(self, seq: int) -> None:
        if seq > self.acked:
            self.acked = seq
            self._unacked_since = monotonic()
            if self.done:
                self._on_done()

    def _fill(self) -> None:
        transport = self.transport
        if transport is None or not self.inside or self._held:
            return
        end = min(self._limit, self.acked + self._plan.window, self.wanted)
        while self._sent < end:
            last = min(end, self._sent + _FRAME_MESSAGES)
            if self._sent == self.acked:
                self._unacked_since = monotonic()
            messages = b",".join(
                b'{"seq":%d,"type":"t","data":%b}' % (seq, payload(self.name, seq))
                for seq in range(self._sent + 1, last + 1)
            )
            self._sent = last
            transport.write(masked_frame(1, b"[%b]" % messages))

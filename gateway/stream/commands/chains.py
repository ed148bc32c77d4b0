"""Which devices a rule has just commanded: what they send then goes on with the rule's chain.

A rule may command a device, and the device may answer with an event that the rule matches again. No
member of the wire says what an event answers to. So a node remembers for a moment that a device was
given a command with a hop count, and stores with this count what the device sends meanwhile: the
eighth hop of such a circle is a dead letter (`events/hops.py`). A device that takes longer, or is
on another node by then, begins a new chain.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from gateway.stream.commands.interest import DeviceKey
from gateway.stream.header_block import header_of

HOPS_HEADER: Final = b"Tidegate-Hops"
DEVICES_MAX: Final = 10_000
"""Devices that are remembered; the one that was commanded first is forgotten first."""
_DIGITS_MAX: Final = 4

Mark = Callable[[str, bytes], bytes]
"""Gives header lines for a message of that type with that `data`, or nothing."""


class Chains:
    """Falsy while no device is remembered, so that a frame of a device costs one test."""

    def __init__(self, remembered_s: float, clock: Callable[[], float] = monotonic) -> None:
        """
        Args:
            remembered_s: how long after its command a device goes on with the chain; 0 for never.
            clock: monotonic seconds.
        """
        self._remembered_s = remembered_s
        self._clock = clock
        self._hops: OrderedDict[DeviceKey, tuple[int, float]] = OrderedDict()
        """The hop count of each device, and until when it counts; the oldest first."""

    def __len__(self) -> int:
        return len(self._hops)

    def commanded(self, key: DeviceKey, headers: bytes) -> None:
        """A device was given a command.

        Args:
            key: tenant and device.
            headers: of the request; one that no rule has sent has no hop count.
        """
        text = header_of(headers, HOPS_HEADER)
        if not text.isdigit() or len(text) > _DIGITS_MAX or not self._remembered_s:
            return
        now = self._clock()
        before = self._hops.pop(key, None)
        hops = int(text)
        if before is not None and now < before[1]:
            hops = max(hops, before[0])
        self._hops[key] = hops, now + self._remembered_s
        if len(self._hops) > DEVICES_MAX:
            self._hops.popitem(last=False)

    def marking(self, key: DeviceKey, mark: Mark | None) -> Mark | None:
        """What gives the header lines of a device's messages now.

        Args:
            key: tenant and device.
            mark: what gives the other lines.
        """
        now = self._clock()
        while self._hops and next(iter(self._hops.values()))[1] <= now:
            self._hops.popitem(last=False)
        found = self._hops.get(key)
        if found is None:
            return mark
        line = b"%b:%d\r\n" % (HOPS_HEADER, found[0])
        if mark is None:
            return lambda _type, _data: line
        return lambda message_type, data: line + mark(message_type, data)

"""What was read of the streams, device by device, and how much of it is remembered. Pure."""

from collections import OrderedDict
from collections.abc import Collection
from typing import Final, NamedTuple

from gateway.stream.names import EVENTS

_DEVICES_MAX: Final = 20_000
_OUTBOXES_MAX: Final = 1_024
"""Outboxes remembered for a device. If one is forgotten, all messages are read again."""
_ALL_OUTBOXES_MAX: Final = 30_000
"""Outboxes remembered for all devices, some 15 MB. Beyond it, the least used are forgotten."""


class Source(NamedTuple):
    """A device's messages in one stream."""

    stream: str
    tenant: str
    device: str

    @property
    def subject(self) -> str:
        """Filter for these messages."""
        if self.stream == EVENTS:
            return f"events.{self.tenant}.{self.device}.>"
        return f"deadletters.{self.tenant}.{self.device}"  # letters of consumers are deeper


class Place(NamedTuple):
    """A message in a stream."""

    sequence: int
    message_id: str


class DeviceRead:
    """A device's messages in one stream, as far as they were read."""

    __slots__ = ("at", "complete", "counted", "outboxes")

    def __init__(self) -> None:
        self.at = Place(0, "")
        self.complete = True
        """Whether every outbox up to `at` is in `outboxes`."""
        self.outboxes: dict[str, int] = {}
        self.counted = 0
        """How many of them are in the count of all."""

    def take(self, place: Place, source: Source, wanted: str) -> None:
        """The next message of the device. `wanted` is an outbox not to be forgotten."""
        if place.sequence <= self.at.sequence:
            return  # two questions about one device read it at the same time
        self.at = place
        found = parse_id(place.message_id, source.tenant, source.device)
        if found is None:
            return
        outbox, seq = found
        self.outboxes.pop(outbox, None)  # the newest last
        self.outboxes[outbox] = seq
        if len(self.outboxes) > _OUTBOXES_MAX:
            del self.outboxes[next(each for each in self.outboxes if each != wanted)]
            self.complete = False


def parse_id(message_id: str, tenant: str, device: str) -> tuple[str, int] | None:
    """Outbox and seq of a `Nats-Msg-Id`; None if it is not of a message this device sent.

    The letter of a reused seq has a fifth part, a digest.
    """
    parts = message_id.split(":")
    if len(parts) not in (4, 5) or parts[:2] != [tenant, device] or not parts[3].isdecimal():
        return None
    return parts[2], int(parts[3])


class DeviceReads:
    """What was read of the devices that were asked for last."""

    __slots__ = ("_outboxes", "_reads")

    def __init__(self) -> None:
        self._reads: OrderedDict[Source, DeviceRead] = OrderedDict()
        self._outboxes = 0
        """Remembered in all of them."""

    @property
    def kept(self) -> Collection[DeviceRead]:
        """All that is remembered."""
        return self._reads.values()

    def of(self, source: Source) -> DeviceRead:
        """What was read of a device; nothing if it is not remembered."""
        return self._reads.get(source, DeviceRead())

    def keep(self, source: Source, read: DeviceRead) -> None:
        """Remember what was read, and forget what was used longest ago if it is too much."""
        before = self._reads.get(source)
        if before is not None:
            self._outboxes -= before.counted
        self._reads[source] = read
        self._reads.move_to_end(source)
        read.counted = len(read.outboxes)
        self._outboxes += read.counted
        while len(self._reads) > _DEVICES_MAX or (
            self._outboxes > _ALL_OUTBOXES_MAX and len(self._reads) > 1
        ):
            _, forgotten = self._reads.popitem(last=False)
            self._outboxes -= forgotten.counted

"""Which devices this node hears commands for: one subscription for each device that it holds.

Each subscription has the exact subject of its device, so nats-server itself answers a request to a
device which no node holds: "no responders", at once. A subscription is two lines on the wire and an
entry here; nats-py's own Subscription, with its queue and its events, costs some 3 KiB each.

Lines are gathered and written one slice a turn of the event loop: a storm of devices, or a new
connection to NATS, must not delay the acks of the devices that are connected. Where thousands of
sessions end, some in each turn, their lines rest and share writes: each write wakes nats-server,
which costs more than the lines, and the devices that stay need that processor.
"""

import asyncio
import itertools
from collections import deque
from typing import Final

from gateway.stream.link.client import EXACT_SID_MIN, ExactHandler, LinkClient

_SLICE: Final = 500
"""Lines that are written in one turn, some 20 KiB."""
_PAUSE_S: Final = 0.005
"""Between two slices: 100,000 devices are subscribed to again within a second."""
_REST_S: Final = 0.02
"""After a write, before one that only ends subscriptions. Meanwhile a request for such a device is
not answered, as none is between the end of a connection and that of its session."""
PROBE: Final = "commands.tidegate.rights~probe"
"""No device has this name. If the right to subscribe lacks, the server says so on each connection,
although no device may be connected yet."""

DeviceKey = tuple[str, str]
"""Tenant and device."""


class Interest:
    """The subscriptions of one node. Memory grows with the sessions that it holds, no further."""

    def __init__(self, handler: ExactHandler) -> None:
        """
        Args:
            handler: takes each message of these subscriptions.
        """
        self._handler = handler
        self._client: LinkClient | None = None
        self._numbers = itertools.count(EXACT_SID_MIN)
        self._held: dict[DeviceKey, tuple[int, int]] = {}
        """The fence of the session and the number of the subscription."""
        self._lines: deque[bytes] = deque()
        self._timer: asyncio.Handle | None = None
        self._rests = False
        """Whether the timer is that of a rest."""
        self._written_at = -_REST_S

    def __len__(self) -> int:
        return len(self._held)

    @property
    def unwritten(self) -> int:
        """Lines that wait for their turn."""
        return len(self._lines)

    def on_up(self, client: LinkClient) -> None:
        """Subscribe again on a fresh connection, to every device that is held."""
        self._client = client
        self._lines.clear()
        client.hear_exact(self._handler)
        client.write(f"SUB {PROBE} {next(self._numbers)}\r\n".encode())
        for key, (_fence, number) in self._held.items():
            self._lines.append(_subscribe(key, number))
        self._soon()

    def established(self, key: DeviceKey, fence: int) -> None:
        """This node holds the device."""
        held = self._held.get(key)
        if held is not None:
            self._held[key] = (fence, held[1])
            return
        number = next(self._numbers)
        self._held[key] = (fence, number)
        if self._say(_subscribe(key, number)):
            self._soon()

    def ended(self, key: DeviceKey, fence: int) -> None:
        """A session has ended; nothing if a newer one of its device is here."""
        held = self._held.get(key)
        if held is not None and held[0] == fence:
            del self._held[key]
            if self._say(b"UNSUB %d\r\n" % held[1]) and self._timer is None:
                self._rest()

    def close(self) -> None:
        """Write nothing more."""
        self._client = None
        self._lines.clear()

    def _say(self, line: bytes) -> bool:
        """Keep a line for the next write; False if there will be none."""
        client = self._client
        if client is None or not client.is_connected:
            return False  # the next connection says it all
        self._lines.append(line)
        return True

    def _soon(self) -> None:
        """Write in this turn of the loop."""
        if self._timer is not None and self._rests:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._lines:
            self._rests = False
            self._timer = asyncio.get_running_loop().call_soon(self._write)

    def _rest(self) -> None:
        """Write when the rest after the last write is over."""
        loop = asyncio.get_running_loop()
        left_s = self._written_at + _REST_S - loop.time()
        if left_s <= 0:
            self._soon()
            return
        self._rests = True
        self._timer = loop.call_later(left_s, self._write)

    def _write(self) -> None:
        self._timer = None
        self._rests = False
        lines, client = self._lines, self._client
        if client is None or not client.is_connected:
            lines.clear()
            return
        client.write(b"".join(lines.popleft() for _ in range(min(_SLICE, len(lines)))))
        loop = asyncio.get_running_loop()
        self._written_at = loop.time()
        if lines:
            self._timer = loop.call_later(_PAUSE_S, self._write)


def _subscribe(key: DeviceKey, number: int) -> bytes:
    tenant, device = key
    return f"SUB commands.{tenant}.{device} {number}\r\n".encode()

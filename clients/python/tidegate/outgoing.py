"""The receipts and results of queued commands that one session sends, at a pace. Pure."""

from collections import deque
from collections.abc import Sequence
from typing import Final

_FRAMES_BURST: Final = 50
"""So many receipts and results are sent at once, and a second. A gateway allows about twice as
many frames that are no messages."""


class Outgoing:
    """The receipts and results for the present session, at a pace."""

    def __init__(self, now: float) -> None:
        self.session = 0
        """Counts the sessions."""
        self._receipts = False
        self._frames: deque[bytes] = deque()
        self._allowed = float(_FRAMES_BURST)
        self._counted_at = now

    def begin(self, receipts: bool) -> None:
        """A session has begun, with a gateway that knows `receipts`, or not."""
        self.session += 1
        self._receipts = receipts
        self._frames.clear()

    def put_in(self, session: int, receipt: bytes, *results: bytes) -> None:
        """Send in this session, if it is the present one, a receipt and perhaps a result."""
        if session == self.session:
            self.put(*([receipt] if self._receipts else []), *results)

    def put(self, *frames_: bytes) -> None:
        """Send these frames after those that wait."""
        self._frames.extend(frames_)

    def repeat(self, results: Sequence[bytes]) -> None:
        """Send these results, if no frame waits and the gateway knows `receipts`."""
        if self._receipts and not self._frames:
            self.put(*results)

    def take(self, now: float) -> list[bytes]:
        """Take what may be sent at the time `now`."""
        earned = (now - self._counted_at) * _FRAMES_BURST
        self._allowed, self._counted_at = min(float(_FRAMES_BURST), self._allowed + earned), now
        taken = []
        while self._frames and self._allowed >= 1:
            taken.append(self._frames.popleft())
            self._allowed -= 1
        return taken

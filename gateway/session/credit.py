"""How many messages a device may have unacknowledged: a small window that grows with acks.

Demand flows upstream (MQTT 5 calls it Receive Maximum, Reactive Streams `request(n)`): the device
may send up to the acknowledged `seq` plus its credit. After each connect the window is small and
doubles with every window of acks (slow start, RFC 5681 section 3.1), so that ten thousand devices
that come back with full outboxes do not all empty them at once.

The window follows a ceiling that all sessions of a node share (`CreditPool`): it sinks with the
node's publish backlog, so a chatty device is cut down to what everybody may have while a quiet one
never notices (max-min fairness). In a hold it is zero.

A limit once told to a device is never taken back: it may have sent already.
"""

from typing import Final

_SIZE_FADE: Final = 0.01
_SIZE_GUESS_BYTES: Final = 512.0


class CreditPool:
    """What one session of a node may have outstanding, in messages."""

    __slots__ = ("_budget_bytes", "_high", "_low", "_maximum", "_message_bytes")

    def __init__(
        self, *, maximum: int, budget_bytes: int, low: float = 0.25, high: float = 0.75
    ) -> None:
        """
        Args:
            maximum: of one session, when all is well.
            budget_bytes: of all sessions together, reckoned with the mean size of late messages.
            low: share of the publish bounds in use below which nobody is cut down.
            high: share from which a session has one message at a time.
        """
        self._maximum = maximum
        self._budget_bytes = budget_bytes
        self._low = low
        self._high = high
        self._message_bytes = _SIZE_GUESS_BYTES

    @property
    def message_bytes(self) -> float:
        """Mean size of late messages."""
        return self._message_bytes

    def received(self, messages: int, size: int) -> None:
        """So many messages of `size` bytes together came in."""
        mean = size / messages
        self._message_bytes += (mean - self._message_bytes) * min(1.0, _SIZE_FADE * messages)

    def ceiling(self, sessions: int, backlog: float) -> int:
        """The largest window of one session, at least 1.

        Args:
            sessions: that share the budget.
            backlog: share of the publish bounds in use.
        """
        share = self._budget_bytes / (max(1, sessions) * self._message_bytes)
        ceiling = min(float(self._maximum), share)
        if backlog > self._low:
            left = (self._high - backlog) / (self._high - self._low)
            ceiling = min(ceiling, self._maximum * left)
        return max(1, int(ceiling))


class CreditWindow:
    """Credit of one session, in messages."""

    __slots__ = ("_acked", "_held", "_initial", "_limit", "_maximum", "_window")

    def __init__(self, *, initial: int, maximum: int) -> None:
        if not 1 <= initial <= maximum:
            raise ValueError(f"credit starts at {initial}, outside 1..{maximum}")
        self._initial = initial
        self._window = initial
        self._maximum = maximum
        self._held = False
        self._acked = 0
        self._limit = initial

    def start(self, acked: int, ceiling: int) -> None:
        """Begin at `acked`, the last seq that is settled, and in no hold."""
        self._held = False
        self._acked = acked
        self._window = min(self._initial, ceiling)
        self._limit = acked + self._window

    @property
    def acked(self) -> int:
        return self._acked

    @property
    def limit(self) -> int:
        """The highest seq the device may send."""
        return self._limit

    @property
    def credit(self) -> int:
        """What the device may send beyond what is acknowledged."""
        return self._limit - self._acked

    def acknowledge(self, seq: int, ceiling: int) -> None:
        """Everything up to and including `seq` is settled; the window grows by what that was."""
        self._window = min(self._maximum, ceiling, self._window + seq - self._acked)
        self._acked = seq
        if not self._held:
            self._limit = max(self._limit, seq + self._window)

    def hold(self) -> None:
        """Give no more until `release`."""
        self._held = True

    def release(self, ceiling: int) -> None:
        """Begin again, small: what waits in ten thousand outboxes must not come at once."""
        self._held = False
        self._window = min(self._initial, ceiling)
        self._limit = max(self._limit, self._acked + self._window)

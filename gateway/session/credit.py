"""How many messages a device may have unacknowledged: a small window that grows with acks.

Demand flows upstream (MQTT 5 calls it Receive Maximum, Reactive Streams `request(n)`): the device
may send up to the acknowledged `seq` plus its credit. After each connect the window is small and
doubles with every window of acks (slow start, RFC 5681 section 3.1), so that ten thousand devices
that come back with full outboxes do not all empty them at once.

A limit once told to a device is never taken back: it may have sent already.
"""


class CreditWindow:
    """Credit of one session, in messages."""

    __slots__ = ("_acked", "_limit", "_maximum", "_window")

    def __init__(self, *, initial: int, maximum: int) -> None:
        if not 1 <= initial <= maximum:
            raise ValueError(f"credit starts at {initial}, outside 1..{maximum}")
        self._window = initial
        self._maximum = maximum
        self._acked = 0
        self._limit = initial

    def start(self, acked: int) -> None:
        """Begin at `acked`, the last seq that is settled."""
        self._acked = acked
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

    def acknowledge(self, seq: int) -> None:
        """Everything up to and including `seq` is settled; the window grows by what that was."""
        self._window = min(self._maximum, self._window + seq - self._acked)
        self._acked = seq
        self._limit = max(self._limit, seq + self._window)

"""How many messages a device may have unacknowledged: a small window that grows with acks.

Demand flows upstream (MQTT 5 calls it Receive Maximum, Reactive Streams `request(n)`): the device
may send up to the acknowledged `seq` plus its credit. After each connect the window is small and
doubles with every window of acks (slow start, RFC 5681 section 3.1). So ten thousand devices that
come back with full outboxes do not all empty them at once.

The window has a ceiling that all sessions of a node share (`CreditPool`). The ceiling sinks with
the node's publish backlog and cuts down a device that sends much, while a device that sends little
never reaches it (max-min fairness). In a hold the credit is zero.

A limit that a device was told is never taken back, because the device may have used it already.
"""

from typing import Final

_SIZE_FADE: Final = 0.01
_SIZE_GUESS_BYTES: Final = 512.0


class CreditPool:
    """Computes what one session of a node may have outstanding, in messages."""

    __slots__ = ("_budget_bytes", "_high", "_low", "_maximum", "_message_bytes")

    def __init__(
        self, *, maximum: int, budget_bytes: int, low: float = 0.25, high: float = 0.75
    ) -> None:
        """
        Args:
            maximum: of one session, while the backlog is small.
            budget_bytes: of all sessions together, computed with the mean size of recent messages.
            low: share of the publish bounds in use up to which no session is cut down.
            high: share from which a session may have one message outstanding.
        """
        self._maximum = maximum
        self._budget_bytes = budget_bytes
        self._low = low
        self._high = high
        self._message_bytes = _SIZE_GUESS_BYTES

    @property
    def message_bytes(self) -> float:
        """Mean size of recent messages."""
        return self._message_bytes

    def received(self, messages: int, size: int) -> None:
        """Count `messages` messages, `size` bytes together."""
        mean = size / messages
        self._message_bytes += (mean - self._message_bytes) * min(1.0, _SIZE_FADE * messages)

    def ceiling(self, sessions: int, backlog: float) -> int:
        """The largest window of one session, at least 1.

        Args:
            sessions: number of sessions that share the budget.
            backlog: share of the publish bounds in use.
        """
        # Called for each ack. Nearly always the backlog is small and the answer is the maximum.
        maximum = self._maximum
        ceiling = self._budget_bytes / (self._message_bytes * (sessions or 1))
        if backlog > self._low:
            left = maximum * (self._high - backlog) / (self._high - self._low)
            ceiling = min(ceiling, left)
        if ceiling >= maximum:
            return maximum
        return int(ceiling) if ceiling > 1 else 1


class CreditWindow:
    """The credit of one session, in messages."""

    __slots__ = ("_held", "_initial", "_maximum", "_window", "acked", "limit")

    def __init__(self, *, initial: int, maximum: int) -> None:
        if not 1 <= initial <= maximum:
            raise ValueError(f"credit starts at {initial}, outside 1..{maximum}")
        self._initial = initial
        self._window = initial
        self._maximum = maximum
        self._held = False
        self.acked = 0
        """The last settled seq."""
        self.limit = initial
        """The highest seq the device may send."""

    def start(self, acked: int, ceiling: int) -> None:
        """Begin at `acked`, the last settled seq, without a hold."""
        self._held = False
        self.acked = acked
        self._window = min(self._initial, ceiling)
        self.limit = acked + self._window

    @property
    def held(self) -> bool:
        """Whether no credit is given until `release`."""
        return self._held

    @property
    def credit(self) -> int:
        """Messages that the device may send beyond the acknowledged seq."""
        return self.limit - self.acked

    def acknowledge(self, seq: int, ceiling: int) -> None:
        """Everything up to and including `seq` is settled; the window grows by that number."""
        self._window = min(self._maximum, ceiling, self._window + seq - self.acked)
        self.acked = seq
        if not self._held:
            self.limit = max(self.limit, seq + self._window)

    def hold(self) -> None:
        """Give no more until `release`."""
        self._held = True

    def release(self, ceiling: int) -> None:
        """Begin again with a small window: full outboxes must not all be emptied at once."""
        self._held = False
        self._window = min(self._initial, ceiling)
        self.limit = max(self.limit, self.acked + self._window)

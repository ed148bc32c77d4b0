"""What an outbox may hold, and which messages give way when it is full. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

DROP_SHARE: Final = 10
"""One part in so many of each bound is dropped beyond what is needed."""


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """What an outbox may hold. `age_max_s` None allows any age.

    With `drop_oldest` the outbox drops a tenth of the bound more than needed, but no new message
    and none on its way. Each drop may cost a further `hello`, or a reconnect, so drops must be
    rare.
    """

    messages_max: int = 100_000
    bytes_max: int = 67_108_864
    age_max_s: float | None = None
    when_full: Literal["refuse", "drop_oldest"] = "refuse"

    @property
    def drops(self) -> bool:
        """Whether the oldest messages give way to new ones."""
        return self.when_full == "drop_oldest"


@dataclass(frozen=True, slots=True)
class Excess:
    """How many messages and bytes are over a bound. At most 0 is no excess."""

    messages: int
    bytes: int

    def __bool__(self) -> bool:
        return self.messages > 0 or self.bytes > 0

    def with_a_tenth(self, limits: OutboxLimits) -> "Excess":
        """This excess and a tenth of each bound that is exceeded."""
        return Excess(
            self.messages + (limits.messages_max // DROP_SHARE if self.messages > 0 else 0),
            self.bytes + (limits.bytes_max // DROP_SHARE if self.bytes > 0 else 0),
        )

    def less(self, messages: int, size: int) -> "Excess":
        """What is left of this excess once so much is gone."""
        return Excess(self.messages - messages, self.bytes - size)


def judge(
    sizes: Sequence[int], limits: OutboxLimits, *, messages: int, size: int
) -> list[str | None]:
    """Which new messages are refused, each judged by itself.

    Args:
        sizes: bytes of data of each new message.
        limits: of the outbox.
        messages: how many messages the outbox holds already.
        size: how many bytes of data the outbox holds already.

    Returns:
        For each message None, or the bound that it would exceed.
    """
    verdicts: list[str | None] = []
    if limits.drops:
        messages = size = 0  # what is there gives way; a message must fit by itself
    for each in sizes:
        if messages >= limits.messages_max:
            verdicts.append(f"{limits.messages_max} messages")
        elif size + each > limits.bytes_max:
            verdicts.append(f"{limits.bytes_max} bytes")
        else:
            verdicts.append(None)
            if not limits.drops:
                messages += 1
                size += each
    return verdicts


def overflow(sizes: Sequence[int], limits: OutboxLimits) -> int:
    """How many of these messages, from the first, do not fit even an empty outbox."""
    first = max(0, len(sizes) - limits.messages_max)
    size = sum(sizes[first:])
    while size > limits.bytes_max:
        size -= sizes[first]
        first += 1
    return first


def oldest(rows: Iterable[tuple[int, int]], excess: Excess) -> tuple[int, Excess]:
    """Which of the oldest messages make up `excess`.

    Args:
        rows: number and bytes of each, oldest first.
        excess: how much must go.

    Returns:
        The number of the last message that goes (0 if none), and the excess that is left.
    """
    last = 0
    for number, size in rows:
        if not excess:
            break
        last, excess = number, excess.less(1, size)
    return last, excess

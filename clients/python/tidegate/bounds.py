"""What an outbox may hold, and what gives way when it is full. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

DROP_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """What an outbox may hold; `age_max_s` None is any age.

    With `drop_oldest` a tenth more than needed is dropped at once, as far as nothing new and
    nothing on its way is touched: each drop may cost a further `hello`, or a reconnect.
    """

    messages_max: int = 100_000
    bytes_max: int = 67_108_864
    age_max_s: float | None = None
    when_full: Literal["refuse", "drop_oldest"] = "refuse"

    @property
    def drops(self) -> bool:
        """Whether the oldest messages give way."""
        return self.when_full == "drop_oldest"


@dataclass(frozen=True, slots=True)
class Excess:
    """So many messages, and so many bytes, over a bound. Nothing where both are at most 0."""

    messages: int
    bytes: int

    def __bool__(self) -> bool:
        return self.messages > 0 or self.bytes > 0

    def with_a_tenth(self, limits: OutboxLimits) -> "Excess":
        """A tenth of each bound more, if it is passed at all."""
        return Excess(
            self.messages + (limits.messages_max // DROP_SHARE if self.messages > 0 else 0),
            self.bytes + (limits.bytes_max // DROP_SHARE if self.bytes > 0 else 0),
        )

    def less(self, messages: int, size: int) -> "Excess":
        """What is left of it once so much is gone."""
        return Excess(self.messages - messages, self.bytes - size)


def judge(
    sizes: Sequence[int], limits: OutboxLimits, *, messages: int, size: int
) -> list[str | None]:
    """Which new messages are refused, each judged by itself.

    Args:
        sizes: of their data.
        limits: that apply.
        messages: how many there are already.
        size: their bytes.

    Returns:
        For each None, or the bound that it would pass.
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
    """How many of these, from the first, do not fit even an empty outbox."""
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
        excess: what has to go.

    Returns:
        The number of the last that goes (0 if none), and what is left of the excess.
    """
    last = 0
    for number, size in rows:
        if not excess:
            break
        last, excess = number, excess.less(1, size)
    return last, excess

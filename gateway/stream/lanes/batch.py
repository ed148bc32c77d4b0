"""Messages on their way into a stream, the batches that carry them, and what answers mean. Pure."""

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import UNSET, Struct

from gateway.session.owner import MessageOwner
from gateway.stream.lanes.encoding import SEQ_REUSED, Envelope, SourceHeaders
from gateway.stream.lanes.standing import NEVER, Standing
from gateway.stream.lanes.tracing import MessageTrace
from gateway.stream.names import EVENTS
from tidegate.wire.frames import Message


class Pending(Struct, eq=False, gc=False):
    """A message on its way into a stream.

    The cyclic collector does not follow it: there are as many as messages, and each is let go of
    once it is settled.
    """

    owner: MessageOwner
    standing: Standing
    seq: int
    envelope: Envelope
    size: int
    absent_at: float
    """The last moment at which the message is known not to have been stored."""
    trace: MessageTrace | None = None
    """Of a sampled message."""
    reject: tuple[str, str] | None = None
    """`error` and `detail` if it goes to the dead letters."""
    repeated: bool = False
    """This node published the message before, and does not know whether it was stored."""
    ask_after: float = NEVER
    """A look-up from before this moment does not tell whether the message is stored."""

    @property
    def ours(self) -> bool:
        """Whether a duplicate of this message can only be the message itself: this node published
        it before, or its content is in its id.
        """
        return self.repeated or (self.reject is not None and self.reject[0] == SEQ_REUSED)

    @property
    def stream(self) -> str:
        """Which must store it."""
        return self.envelope.stream


RUN_MIN: Final = 2
"""Messages of the shortest run: for one message a run saves nothing."""


class Run(Struct, eq=False, gc=False):
    """Events of one frame that go through the lane as one, and into linked batches only.

    A device that is behind sends many messages in a frame. Nearly always all of them wait together,
    are in one batch, and are settled by one answer. So a run costs the lane as much as one message,
    and its bytes are written straight into the batch. Whatever treats messages one by one (another
    kind of batch, a repeat, a look-up) splits it first.

    None of its messages is sampled, and its device has sent none of them before.
    """

    owner: MessageOwner
    standing: Standing
    messages: list[Message]
    """At least `RUN_MIN`, in order."""
    headers: SourceHeaders
    received_at: str
    """RFC 3339; the time of those messages that bring none."""
    size: int
    """Bytes that all of them count for, which is about as many as they have."""
    absent_at: float
    """The last moment at which the messages are known not to have been stored."""

    @property
    def stream(self) -> str:
        """Which must store them."""
        return EVENTS

    @property
    def seq(self) -> int:
        """Of the last message."""
        return self.messages[-1].seq

    def envelope(self, place: int) -> Envelope:
        """One of its messages, ready to publish."""
        message = self.messages[place]
        time = self.received_at if message.time is UNSET else message.time
        return self.headers.event(message.seq, message.type, time, message.data)

    def split(self) -> "list[Pending]":
        """Its messages, one by one. Together they count for as many bytes as the run."""
        owner, standing, absent_at = self.owner, self.standing, self.absent_at
        share, rest = divmod(self.size, len(self.messages))
        items = [
            Pending(owner, standing, message.seq, self.envelope(place), share, absent_at)
            for place, message in enumerate(self.messages)
        ]
        items[-1].size += rest
        return items


Item = Pending | Run
"""What waits in a lane."""


def count_of(items: Sequence[Item]) -> int:
    """How many messages these are."""
    return len(items) + sum(len(item.messages) - 1 for item in items if type(item) is Run)


def split_all(items: Iterable[Item]) -> list[Pending]:
    """The messages of these, one by one."""
    split: list[Pending] = []
    for item in items:
        if type(item) is Pending:
            split.append(item)
        else:
            assert type(item) is Run
            split += item.split()
    return split


Disposal = Callable[[Pending, str], Pending]
"""Turns a message that JetStream will never take into its dead letter."""


class Kind(enum.Enum):
    """How a batch is published."""

    SINGLE = "single"
    ATOMIC = "atomic"
    FAST = "fast"
    LINKED = "linked"
    ROUND = "round"


class Strategy(enum.Enum):
    """How batches of several messages are published; chosen once, by what the server can do."""

    PLAIN = "plain"
    ATOMIC = "atomic"
    FAST = "fast"
    LINKED = "linked"


class Verdict(enum.Enum):
    """What an answer means for a message or a batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    PARTIAL = "partial"  # a duplicate inside an atomic batch, or a batch that was cut short
    AMBIGUOUS = "ambiguous"
    TOO_LARGE = "too_large"  # more messages than the server takes in a batch
    THROTTLED = "throttled"  # refused for now: a limit reached, no space, too many in flight
    REFUSED = "refused"  # never going to be stored: the message itself is the offence


@dataclass(frozen=True, slots=True)
class Answer:
    """What JetStream said of a message or a batch."""

    verdict: Verdict
    reason: str = ""
    stored_count: int = 0
    """PARTIAL only: how many messages, from the first, are known to be stored."""
    messages_max: int = 0
    """TOO_LARGE only: how many messages the server takes."""
    stored_at: int = 0
    """The stream sequence: of the message that was there first, if it is a DUPLICATE; of a message
    of a linked batch that was STORED."""


CUT_SHORT: Final = Answer(Verdict.PARTIAL, "partial")
"""Some of a batch is stored, and nobody says how much."""


@dataclass(slots=True, eq=False)
class Batch:
    """Messages that are published together, or in one round of single publishes."""

    number: int
    kind: Kind
    items: list[Item]
    """Runs are among them only if it is linked."""
    started_at: float
    size: int = 0
    """Bytes."""
    sent: int = 0
    """Messages, from the first, that were sent ahead."""
    complete: bool = False
    """It takes no more messages."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """The answers so far, by place, if they come one by one."""
    first_at: int = 0
    """The stream sequence of the first message of a linked batch; 0 before it is known."""
    in_runs: int = 0
    """Messages in its runs, without one of each run."""
    early: Answer | None = None
    """Its answer, if that came before the answer to the batch that it follows."""

    @property
    def messages(self) -> int:
        """How many it has."""
        return len(self.items) + self.in_runs

    @property
    def devices(self) -> set[str]:
        """Whose messages it has."""
        return {item.standing.device for item in self.items}

    def add(self, run: Run) -> None:
        """Take these messages in."""
        self.items.append(run)
        self.in_runs += len(run.messages) - 1
        self.size += run.size

    def split(self) -> list[Pending]:
        """Its messages, one by one. It has no runs any more."""
        items = split_all(self.items)
        self.items, self.in_runs = list(items), 0
        return items

    def keep_one_per_device(self) -> list[Pending]:
        """Keep the first message of each device; all that come after are returned."""
        first: list[Item] = []
        later: list[Pending] = []
        seen: set[str] = set()
        for item in self.split():
            if item.standing.device in seen:
                later.append(item)
            else:
                seen.add(item.standing.device)
                first.append(item)
        self.items = first
        return later

    @property
    def answered_one_by_one(self) -> bool:
        """Whether each message gets an answer of its own."""
        return self.kind is Kind.ROUND

    def whole(self, place: int, answer: Answer) -> Answer | None:
        """What an answer to the first or the last message means for the whole of a linked batch.

        A message that was stored before the batch was sent, and is the last of its stream, makes a
        link hold behind one that is missing. Then the stream grows by fewer messages.
        """
        if place == 0:
            self.first_at = answer.stored_at if answer.verdict is Verdict.STORED else 0
            return None
        if answer.verdict is Verdict.STORED and (
            not self.first_at or answer.stored_at - self.first_at != self.messages - 1
        ):
            return CUT_SHORT
        return answer

    @property
    def stored_one_by_one(self) -> bool:
        """Whether some of it can be stored and the rest not, with one answer for all."""
        return self.kind is Kind.FAST or self.kind is Kind.LINKED

    @property
    def reason(self) -> str:
        """Why a round has to be repeated: the first reason among its answers."""
        return next((each.reason for each in self.answers.values() if each.reason), "timeout")


def mark_repeated(items: list[Pending]) -> None:
    """Nobody knows whether `items` were stored: they are published again."""
    for item in items:
        item.repeated = True

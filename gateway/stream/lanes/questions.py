"""Questions to the stream, and the messages that wait aside until it has answered. Pure."""

from collections import deque

from msgspec import Struct

from gateway.stream.lanes.batch import Pending


class Question(Struct, eq=False):
    """What the stream is asked about the first of the messages of a device that wait aside."""

    items: deque[Pending]
    stored_at: int | None = None
    """Compare the first message with the one at this stream sequence. None: ask how far the outbox
    of the first message has come."""

    @property
    def device(self) -> str:
        """Whose messages wait."""
        return self.items[0].standing.device

    def found(self, seq: int, asked_at: float) -> list[Pending]:
        """The stream said, at `asked_at`, that the outbox of the first message has come to `seq`.

        Returns:
            The messages that are settled by this.
        """
        standing = self.items[0].standing
        standing.found(seq, asked_at)
        settled = []
        for item in self.items:
            if item.standing is not standing or item.absent_at >= asked_at:
                continue  # of another outbox, or new since the stream was asked
            if item.seq > seq:
                if item.ask_after <= asked_at:
                    item.absent_at = asked_at
                continue
            settled.append(item)
            if not item.repeated:
                # The device sent it before, perhaps under another schema. Nobody knows in which of
                # the two streams it is, so the device is not told that it was rejected.
                item.reject = None
        return settled


class Aside:
    """The devices of a lane whose messages wait for an answer; one question a device."""

    __slots__ = ("_unasked", "by_device")

    def __init__(self) -> None:
        self.by_device: dict[str, Question] = {}
        self._unasked: list[Question] = []

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return sum(len(each.items) for each in self.by_device.values())

    def add(self, question: Question) -> None:
        """From now on, the messages of this device wait."""
        self.by_device[question.device] = question
        self._unasked.append(question)

    def take_unasked(self) -> list[Question]:
        """The questions that nobody has asked yet."""
        questions, self._unasked = self._unasked, []
        return questions

    def answered(self, question: Question) -> None:
        """The messages of this device wait no more."""
        del self.by_device[question.device]

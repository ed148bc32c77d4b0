"""Checks the messages of a frame: their order, the credit, and whether each can be stored.

- `seq` rises by one from what the stream has. A gap or a repeat is an offence: the transport keeps
  the order, so only a broken client makes one, and storing on would break the order we promise.
- A message beyond the credit is an offence.
- A message that has its place in the order but cannot be stored (because of its type, time, depth,
  size, or its schema) is not an offence. It is settled into the dead letters, because its device
  would otherwise send it again for ever.

Order and credit are checked before any body is read, so a device cannot cause work beyond its
credit. Pure.
"""

from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw

from gateway.session import salvage
from gateway.session.errors import PolicyViolation
from gateway.session.limits import SessionLimits
from tidegate.wire import frames
from tidegate.wire.depth import any_may_exceed, may_exceed, too_deep
from tidegate.wire.grammar import is_message_type, is_timestamp

TOO_LARGE: Final = "too_large"
MEMBERS_BYTES_MAX: Final = 1_024
"""More bytes than a well-formed message has beside its data: names, seq, type, time."""
KNOWN_TYPES_MAX: Final = 4_096
"""Well-formed types that a node remembers. A device that invents types can fill this set; then
types are checked each time.
"""

SchemaProblem = Callable[[str, bytes], str | None]
"""Says what is wrong with the `data` of a message of that type; None if nothing is."""

Storable = frames.Message | frames.Unusable
Problem = tuple[int, str, str]
"""The message's index in its frame, the error and the detail."""


class Intake:
    """The messages of one session, from frame to list of what must be stored."""

    __slots__ = ("_known_types", "_limits", "_schema_problem", "next_seq")

    def __init__(
        self,
        limits: SessionLimits,
        known_types: set[str] | None,
        schema_problem: SchemaProblem | None,
    ) -> None:
        """See `Session`, which passes its own arguments on."""
        self._limits = limits
        self._known_types = known_types if known_types is not None else set()
        self._schema_problem = schema_problem
        self.next_seq = 1
        """The only `seq` that the next message may have."""

    def salvage(self, text: bytes, credit_limit: int) -> list[Storable] | None:
        """Read the messages of a frame that does not decode as a whole, one by one.

        Returns:
            None if the frame is not made of messages.

        Raises:
            PolicyViolation: the messages break a rule.
        """
        readable = salvage.readable(text)
        seqs = salvage.seqs_of(readable)
        if seqs is None:
            return None
        self._check_count(len(seqs), credit_limit)
        for expected, seq in enumerate(seqs, self.next_seq):
            if seq != expected:
                raise _gap(expected, seq)
        return list(map(salvage.read, seqs, salvage.split(text, readable)))

    def admit(self, messages: list[Storable], text: bytes, credit_limit: int) -> list[Storable]:
        """Take the messages of one frame.

        Args:
            messages: as decoded; those that cannot be stored are replaced in this list.
            text: the frame that they came in.
            credit_limit: the highest `seq` that the device may send.

        Raises:
            PolicyViolation: the messages break a rule.
        """
        self._check_count(len(messages), credit_limit)
        if self._schema_problem is None and self._all_plain(messages, text):
            self.next_seq += len(messages)
            return messages
        problems: list[Problem] = []
        suspects: list[int] = []
        bodies: list[bytes] = []
        depth_max, schema_problem = self._limits.json_depth_max, self._schema_problem
        expected = self.next_seq
        for index, message in enumerate(messages):
            if message.seq != expected:
                raise _gap(expected, message.seq)
            expected += 1
            if type(message) is not frames.Message:
                assert type(message) is frames.Unusable
                messages[index] = self._unusable(
                    message.seq, message.error, message.detail, message.raw
                )
                continue
            data = bytes(message.data)
            problem = self._problem(message, data)
            if problem is not None:
                problems.append((index, *problem))
            elif may_exceed(data, depth_max):
                suspects.append(index)
                bodies.append(data)
            elif schema_problem is not None and (said := schema_problem(message.type, data)):
                problems.append((index, "schema", said))
        if suspects:
            problems += self._problems_of(suspects, bodies, messages)
        if problems:
            self._replace(messages, problems, text)
        self.next_seq = expected
        return messages

    def _all_plain(self, messages: list[Storable], text: bytes) -> bool:
        """Whether it is certain without a look at each body that all of these can be stored.

        It is certain of nearly all frames, and costs a third of that look.
        """
        limits, known_types = self._limits, self._known_types
        bodies: list[Raw] = []
        kind: str | None = None
        for expected, message in enumerate(messages, self.next_seq):
            if (
                type(message) is not frames.Message
                or message.seq != expected
                or (message.type != kind and message.type not in known_types)
                or (message.time is not UNSET and not is_timestamp(message.time))
            ):
                return False
            kind = message.type  # most messages of a frame have the type of the one before
            bodies.append(message.data)
        return len(text) <= limits.message_bytes_max and not any_may_exceed(
            bodies, limits.json_depth_max
        )

    def _problems_of(
        self, suspects: list[int], bodies: list[bytes], messages: list[Storable]
    ) -> list[Problem]:
        """Find the problems of messages that have many brackets.

        The depth of all bodies is measured in one call, which is much cheaper than one call each.
        The schema then judges those that are not too deep.
        """
        limit = self._limits.json_depth_max
        deep = set(too_deep(bodies, limit))
        problems = []
        for place, index in enumerate(suspects):
            message = messages[index]
            assert type(message) is frames.Message
            if place in deep:
                problems.append((index, "depth", f"nested deeper than {limit}"))
            elif self._schema_problem is not None:
                said = self._schema_problem(message.type, bodies[place])
                if said is not None:
                    problems.append((index, "schema", said))
        return problems

    def _check_count(self, count: int, credit_limit: int) -> None:
        limit = self._limits.messages_per_frame_max
        if not 1 <= count <= limit:
            raise PolicyViolation("frame", f"{count} messages, not 1 to {limit}")
        last = self.next_seq + count - 1
        if last > credit_limit:
            raise PolicyViolation("credit", f"seq {last} is beyond the credit, {credit_limit}")

    def _problem(self, message: frames.Message, data: bytes) -> tuple[str, str] | None:
        """Why `message` cannot be stored (`error`, `detail`); depth and schema come later."""
        limits = self._limits
        if len(data) > limits.message_bytes_max:
            detail = f"data has {len(data)} bytes, over {limits.message_bytes_max}"
            return TOO_LARGE, detail
        if message.type not in self._known_types:
            if not is_message_type(message.type):
                return "type", "not one to eight tokens [A-Za-z0-9_-]{1,64} joined by dots"
            if len(self._known_types) < KNOWN_TYPES_MAX:
                self._known_types.add(message.type)
        if message.time is not UNSET and not is_timestamp(message.time):
            return "time", "not an RFC 3339 date-time with offset"
        return None

    def _replace(self, messages: list[Storable], problems: list[Problem], text: bytes) -> None:
        """Put dead letters in the place of messages that cannot be stored."""
        raws = salvage.split(text, salvage.readable(text))
        for index, error, detail in problems:
            messages[index] = self._unusable(messages[index].seq, error, detail, raws[index])

    def _unusable(self, seq: int, error: str, detail: str, raw: bytes) -> frames.Unusable:
        """Make a dead letter; it keeps the whole message if that is not much too large."""
        size = len(raw)
        if error != TOO_LARGE and size <= self._limits.message_bytes_max + MEMBERS_BYTES_MAX:
            return frames.Unusable(seq, error, detail, raw)
        return frames.Unusable(seq, error, detail, raw[: salvage.LETTER_BYTES_MAX], size)


def _gap(expected: int, seq: int) -> PolicyViolation:
    return PolicyViolation("gap", f"expected seq {expected}, got {seq}")

"""Is everything that devices sent stored, once and in order? Pure: fed with what the streams hold.

Each seq of an outbox must be in EVENTS or, as a letter of the gateway, in DEADLETTERS: in one of
them, once. In EVENTS the seqs of an outbox must rise. The beginning of an outbox may have expired.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_SHOWN_MAX: Final = 5
_DIGEST_BYTES: Final = 16
_PLAIN_PARTS: Final = 4


class OutboxName(NamedTuple):
    """An outbox of a device."""

    tenant: str
    device: str
    outbox: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.device} outbox {self.outbox}"


@dataclass(slots=True)
class _Outbox:
    runs: list[list[int]] = field(default_factory=list)
    """First and last seq of each run without a gap in EVENTS."""
    letters: set[int] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)


class Audit:
    """What was read so far."""

    def __init__(self) -> None:
        self._outboxes: dict[OutboxName, _Outbox] = {}
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self.events = 0
        self.letters = 0
        self.others = 0
        """Events that no device sent: redriven ones, and those of other programs."""

    @property
    def outboxes(self) -> int:
        return len(self._outboxes)

    @property
    def digest(self) -> str:
        """Of all events, in order: a second run over the same range gives the same."""
        return self._hash.hexdigest()

    def event(self, stream_seq: int, subject: str, message_id: str, data: bytes) -> None:
        """The next message of EVENTS."""
        self.events += 1
        for part in (b"%d" % stream_seq, subject.encode(), message_id.encode(), data):
            self._hash.update(b"%d:" % len(part))
            self._hash.update(part)
        named = _name_of(message_id)
        if named is None:
            self.others += 1
            return
        outbox, seq = self._outboxes.setdefault(named[0], _Outbox()), named[1]
        if outbox.runs and seq == outbox.runs[-1][1] + 1:
            outbox.runs[-1][1] = seq
        elif outbox.runs and seq <= outbox.runs[-1][1]:
            outbox.odd.append(
                f"seq {seq} is stored behind {outbox.runs[-1][1]} (stream sequence {stream_seq})"
            )
        else:
            outbox.runs.append([seq, seq])

    def letter(self, message_id: str) -> None:
        """A letter of the gateway. That of a seq which was used twice settles nothing."""
        self.letters += 1
        named = _name_of(message_id)
        if named is not None:
            self._outboxes.setdefault(named[0], _Outbox()).letters.add(named[1])

    def problems(self) -> Iterator[str]:
        """A line for each offence, those of one outbox shortened."""
        for name, outbox in sorted(self._outboxes.items()):
            found = [*outbox.odd, *_missing(outbox), *_in_both(outbox)]
            for line in found[:_SHOWN_MAX]:
                yield f"{name}: {line}"
            if len(found) > _SHOWN_MAX:
                yield f"{name}: and {len(found) - _SHOWN_MAX} more"


def _missing(outbox: _Outbox) -> Iterator[str]:
    if not outbox.runs:
        return
    gaps = [
        (before[1] + 1, behind[0])
        for before, behind in zip(outbox.runs, outbox.runs[1:], strict=False)
    ]
    last = outbox.runs[-1][1]
    gaps.append((last + 1, max(outbox.letters, default=last) + 1))
    for first, end in gaps:
        missing = [seq for seq in range(first, end) if seq not in outbox.letters]
        for begin, until in _ranges(missing):
            seqs = f"seq {begin} is" if begin == until else f"seqs {begin} to {until} are"
            yield f"{seqs} neither an event nor a letter"


def _in_both(outbox: _Outbox) -> Iterator[str]:
    for seq in sorted(outbox.letters):
        if any(first <= seq <= last for first, last in outbox.runs):
            yield f"seq {seq} is an event and a letter"


def _ranges(seqs: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for seq in seqs:
        if found and found[-1][1] == seq - 1:
            found[-1] = found[-1][0], seq
        else:
            found.append((seq, seq))
    return found


def _name_of(message_id: str) -> tuple[OutboxName, int] | None:
    """Outbox and seq of `<tenant>:<device>:<outbox>:<seq>`; None if no device sent it so."""
    parts = message_id.split(":")
    if len(parts) != _PLAIN_PARTS or "/" in parts[2] or not parts[3].isdecimal():
        return None
    return OutboxName(parts[0], parts[1], parts[2]), int(parts[3])

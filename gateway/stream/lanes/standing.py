"""How far outboxes have come in the streams, as this node knows. Pure; monotonic seconds.

JetStream remembers message ids for its duplicate window only. So one rule keeps storage exactly
once, whatever devices' clocks say and however long anything takes:

    A message is sent to JetStream only within half the window of a moment at which it was known not
    to be stored.

If somebody else stores it in between (another node with an older batch in flight), that is after
this moment, so JetStream still remembers it and answers "duplicate". The other half of the window
is for the way there. A message without such a moment is looked up in the stream first: at a
device's `hello` (`watermark.py`), or in its lane if it waited there for too long (`lane.py`).

JetStream compares ids within one stream, and a message is stored in EVENTS or in DEADLETTERS. A
schema may change between two sends of one message, and then the second one goes to the other
stream. So the rule has a second part:

    A message that its device may have sent before is sent as a dead letter, or as an event after
    this node wrote a letter of it, only after a look-up in both streams. The look-up comes when the
    outcome of every earlier publish of that device by this node is known.

Another node's schema is not known here. So where schemas reject, a device that may have sent
messages is looked up at each `hello`. One case is left: the device has a newer session, perhaps on
another node, the schema has changed, and JetStream stores a publish of the older session only after
the look-up of the newer one.

What is known are facts of the form "at `since`, nothing of this outbox beyond `seq` was stored".
They stay true for ever. They come from look-ups, and from messages that a device sends for the
first time.
"""

import math
from collections import OrderedDict
from typing import Final, NamedTuple

NEVER: Final = -math.inf
"""The moment for a message that is not known to have been absent at any time."""

DOUBT_SHARE: Final = 0.5
"""Share of the duplicate window. A message whose last known absence is older is looked up before it
is published. The server reads a message within the rest of the window."""

_RESUME_SHARE: Final = 0.4
"""Share of the duplicate window. A fact this old still lets a device resume without a look-up.
Less than `DOUBT_SHARE`, so that what the device sends again reaches its lane in time."""

_RENEW_SHARE: Final = 0.125
"""Share of the duplicate window. A device that sends gives a new fact this often. What it sent
since the fact before can be resumed without a look-up."""

STANDINGS_MAX: Final = 100_000


_EVERYTHING: Final = 2**63
"""Beyond every seq."""


class Fact(NamedTuple):
    """At `since`, no message of the outbox beyond `seq` was stored."""

    seq: int
    since: float


_NOTHING: Final = Fact(0, NEVER)


class Resume(NamedTuple):
    """What a device's `hello` says of its outbox."""

    oldest: int
    """The oldest seq it has not heard the settlement of."""
    age_ms: int
    """How long that message has waited, by the device's own clock."""
    sent: int | None
    """The highest seq it may have sent on any earlier connection; None if it does not say."""

    @property
    def in_doubt(self) -> bool:
        """Whether the device may have sent messages that it has not heard the settlement of."""
        return self.sent is None or self.sent >= self.oldest


class Standing:
    """One outbox of one device, as far as this node knows."""

    __slots__ = (
        "_newest",
        "_older",
        "_window_s",
        "asked_at",
        "device",
        "doubt_seq",
        "key",
        "letter_seq",
        "renew_at",
        "stored",
        "unsure",
    )

    def __init__(self, key: tuple[str, str, str], window_s: float) -> None:
        """
        Args:
            key: tenant, device and outbox.
            window_s: the duplicate window.
        """
        self.key = key
        self.device = f"{key[0]}.{key[1]}"
        """Tenant and device: their messages are kept in order."""
        self.stored = 0
        """The highest seq known to be settled."""
        self.doubt_seq = _EVERYTHING
        """Up to here the device may have sent messages before this session. All beyond are new."""
        self.letter_seq = 0
        """The highest seq of which this node wrote a dead letter. A schema may have changed since:
        what is sent again up to here may belong to the other stream now."""
        self.unsure = False
        """Whether what comes next may be a repeat that nobody asked the stream about."""
        self.asked_at = NEVER
        """When a session last asked for it."""
        self.renew_at = NEVER
        """A message sent for the first time after this is worth a new fact."""
        self._window_s = window_s
        self._newest = _NOTHING
        self._older = _NOTHING

    def learn(self, seq: int, since: float) -> None:
        """At `since`, nothing beyond `seq` was stored."""
        if since < self._newest.since:
            return
        if self._newest.seq < seq:
            self._older = self._newest
        elif self._older.seq >= seq:
            self._older = _NOTHING  # the new fact is newer and says more
        self._newest = Fact(seq, since)
        self.renew_at = since + self._window_s * _RENEW_SHARE

    def found(self, seq: int, asked_at: float) -> None:
        """The stream was asked at `asked_at`: `seq` was stored and nothing beyond."""
        self.stored = max(self.stored, seq)
        self.unsure = False
        self.learn(seq, asked_at)

    def expires_at(self) -> float:
        """After this moment nothing that it knows is fresh enough to spare a look-up."""
        return max(self.asked_at, self._newest.since) + self._window_s

    def absent_at(self, seq: int) -> float:
        """The last moment at which message `seq` is known not to have been stored, or `NEVER`."""
        if self._newest.seq < seq:
            return self._newest.since
        return self._older.since if self._older.seq < seq else NEVER

    def sent_first(self, seq: int, now: float) -> None:
        """A message beyond `doubt_seq` came: it and what follows cannot have been stored before."""
        self.unsure = False
        self.learn(seq - 1, now)

    def resume(self, hello: Resume, now: float) -> int | None:
        """Where the device goes on, if that is certain without asking the stream.

        Returns:
            The last settled seq, at least `oldest - 1`; None if the stream must be asked.
        """
        base = hello.oldest - 1
        if not hello.in_doubt:
            self.unsure = False
            self.learn(base, now)
            return base
        if hello.age_ms > self._window_s * 1000 * DOUBT_SHARE:
            return None
        self.unsure = True
        fresh = now - self._window_s * _RESUME_SHARE
        # Without `sent` the device may be a restored copy: what it sends again is compared with
        # what is stored, which it cannot be if it is told that all of that is settled.
        known = base if hello.sent is None else min(max(base, self.stored), hello.sent)
        for seq in (known, max(base, self.stored)):
            if self.absent_at(seq + 1) >= fresh:
                return seq if hello.sent is None else min(seq, hello.sent)
        return None

    def doubt_all(self, *, forget: bool) -> None:
        """A session begins without an answer: whatever it sends may be stored already.

        Args:
            forget: nothing that is known lets a message be published without a look-up. Needed
                where schemas reject: since that moment, another node may have stored the message in
                the other stream.
        """
        self.doubt_seq = _EVERYTHING
        self.unsure = True
        if forget:
            self._newest = self._older = _NOTHING

    def doubt(self, hello: Resume, resumed: int, credit_max: int) -> None:
        """A session begins after `resumed`: settle which of its messages may be repeats.

        Args:
            hello: of the device.
            resumed: what it was answered.
            credit_max: messages a device may have outstanding. One that does not say what it sent
                cannot have sent more than that beyond what is settled.
        """
        if hello.sent is None:
            self.doubt_seq = resumed + credit_max
        else:
            self.doubt_seq = hello.sent
            # If more is stored than the device ever sent, another copy of its outbox sent it.
            self.stored = min(self.stored, resumed)


class Standings:
    """The standings of a node: those of its sessions and of devices that left a moment ago."""

    def __init__(self, window_s: float, most: int = STANDINGS_MAX) -> None:
        """
        Args:
            window_s: the duplicate window.
            most: how many are kept. A standing that is forgotten costs a look-up.
        """
        self._window_s = window_s
        self._most = most
        self._known: OrderedDict[tuple[str, str, str], Standing] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, tenant: str, device: str, outbox: str, now: float) -> Standing:
        """The standing of an outbox, an empty one if nothing is known."""
        key = (tenant, device, outbox)
        standing = self._known.get(key)
        if standing is None:
            self._forget(now)
            standing = self._known[key] = Standing(key, self._window_s)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        standing.asked_at = now
        return standing

    def _forget(self, now: float) -> None:
        """Drop standings that have expired.

        Each addition examines two of them, so the number that is kept follows the number of
        outboxes in use. A session keeps the standing that it has.
        """
        for _ in range(min(2, len(self._known))):
            key, oldest = next(iter(self._known.items()))
            if oldest.expires_at() < now:
                del self._known[key]
            else:
                self._known.move_to_end(key)

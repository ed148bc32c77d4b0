"""What a node knows of the states of devices. Pure.

Two sources say what the state of a device is: the follower, which delivers every state that was set
behind the place in the stream where it began, and direct gets, which find what was set before. Any
replica answers a direct get, and a replica may lag. So an answer counts only if it was computed at
or behind `floor`: then what it does not show, the follower has delivered or will deliver.

Memory is bounded: the devices that were not asked for or set for the longest time are forgotten,
and `floor` rises to the sequence of what was forgotten.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from gateway.session.desired import STATE_BYTES_MAX, Version
from tidegate.wire import frames
from tidegate.wire.depth import json_depth_exceeds
from tidegate.wire.errors import FrameError

Key = tuple[str, str]
"""Tenant and device."""

_ENTRY_BYTES: Final = 400
"""What an entry costs beside its state, about."""


class _Payload(Struct):
    desired: Raw


_decode = msgspec.json.Decoder(_Payload).decode


class Known(NamedTuple):
    """The newest known state of a device; sequence 0 and no bytes if none was set."""

    sequence: int
    desired: bytes


NO_STATE: Final = Known(0, b"")


def subject_of(key: Key) -> str:
    """Where the state of a device is published. Both names are tokens of the grammar."""
    return f"state.{key[0]}.{key[1]}"


def key_of(subject: str) -> Key:
    """The device whose state is published there."""
    _state, tenant, device = subject.split(".")
    return tenant, device


def desired_of(payload: bytes) -> bytes | None:
    """The object `desired` of a message in STATE; None if the message has none.

    Anybody with the right may publish there, so the text is checked before it goes to a device.
    """
    try:
        frames.check_utf8(payload)
        desired = bytes(_decode(payload).desired)
    except (FrameError, msgspec.DecodeError, RecursionError):
        return None
    if desired[:1] != b"{" or len(desired) > STATE_BYTES_MAX:
        return None
    return None if json_depth_exceeds(desired, frames.TOLD_DEPTH_MAX) else desired


class KnownStates:
    """The states that a node has seen last."""

    def __init__(self, bytes_max: int) -> None:
        """
        Args:
            bytes_max: what they may take together, in memory.
        """
        self._bytes_max = bytes_max
        self._bytes = 0
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self.epoch = ""
        """Of the stream; empty until the follower has begun."""
        self.generation = 0
        """Rises with each stream that is followed."""
        self.floor = 0
        """An answer that was computed before this sequence proves nothing."""
        self.witness: str | None = None
        """A subject whose last message is at `floor` or behind it. Where no other message of an
        answer shows how far its replica is, this one does."""

    def __len__(self) -> int:
        return len(self._known)

    def begin(self, epoch: str, floor: int, witness: str | None) -> None:
        """The follower begins with this stream: nothing that was known of another one counts.

        Args:
            epoch: of the stream.
            floor: the sequence of its last message, 0 if it has none.
            witness: the subject of that message.
        """
        self._known.clear()
        self._bytes = 0
        self.generation += 1
        self.epoch, self.floor, self.witness = epoch, floor, witness

    def proves(self, up_to: int) -> bool:
        """Whether a replica that has everything up to this sequence can say what the state is."""
        return up_to >= self.floor

    def get(self, key: Key) -> Known | None:
        """What is known of a device; None if the stream must be asked."""
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def followed(self, key: Key, known: Known) -> None:
        """The follower has delivered a state."""
        self.witness = subject_of(key)
        self.learn(key, known)

    def learn(self, key: Key, found: Known) -> Known:
        """Keep what was found, unless something newer is known.

        Returns:
            The newest.
        """
        before = self._known.get(key)
        if before is not None and before.sequence >= found.sequence:
            self._known.move_to_end(key)
            return before
        if before is not None:
            self._bytes -= _ENTRY_BYTES + len(before.desired)
        self._known[key] = found
        self._known.move_to_end(key)
        self._bytes += _ENTRY_BYTES + len(found.desired)
        while self._bytes > self._bytes_max and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= _ENTRY_BYTES + len(forgotten.desired)
            self.floor = max(self.floor, forgotten.sequence)
        return found

    def version(self, known: Known) -> Version:
        return Version(self.epoch, known.sequence)

"""Which states of a device its session is sent. Pure.

A version is `<epoch>-<sequence>`: when the stream STATE was made, and the place of the state in it.
To devices it is opaque. Here versions have an order, since a later stream has a later epoch, so one
rule is enough: **a session is sent a state only if its version is higher than that of every state
the device has or was sent before.**

What the device says it has is a claim. It may be higher than what this node knows, because the node
lags behind, or because it is wrong. The stream's leader settles that, and only a claim that the
leader disproves is forgotten.
"""

import re
from datetime import datetime
from typing import Final, NamedTuple

STATE_BYTES_MAX: Final = 65_536
"""The largest state of a device, as JSON."""

_VERSION: Final = re.compile(r"([0-9a-f]{16})-([0-9]{1,19})")
_FRACTION: Final = re.compile(r"\.([0-9]+)")


class Version(NamedTuple):
    """Of a state. Sequence 0 stands for "no state was set" in this epoch."""

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


def parse_version(text: str) -> Version | None:
    """The version that a text names; None if it is none that a gateway ever told."""
    found = _VERSION.fullmatch(text)
    return Version(found[1], int(found[2])) if found is not None else None


def epoch_of(created: str) -> str:
    """The epoch of a stream, 16 hexadecimal digits, which sort as the times do.

    Args:
        created: when the stream was made, RFC 3339, as JetStream says it.
    """
    fraction = _FRACTION.search(created)
    moment = datetime.fromisoformat(_FRACTION.sub("", created))
    nanoseconds = int(fraction[1][:9].ljust(9, "0")) if fraction is not None else 0
    return f"{int(moment.timestamp()) * 1_000_000_000 + nanoseconds:016x}"


class DesiredState:
    """What one session was told of the state of its device."""

    __slots__ = ("_claimed", "told")

    def __init__(self, held: str) -> None:
        """
        Args:
            held: the version that the device says it has; empty for none.
        """
        self.told = parse_version(held)
        """The highest version that the device has or was sent; None for none."""
        self._claimed = True

    def ahead_of(self, present: Version) -> bool:
        """Whether the device says that it has more than `present`."""
        return self.told is not None and self.told > present

    def take(self, version: Version) -> bool:
        """Whether to send the state of this version. If so, it counts as sent."""
        if version.sequence == 0 or (self.told is not None and self.told >= version):
            return False
        self.told = version
        self._claimed = False
        return True

    def disprove(self) -> None:
        """The stream's leader has no state as high as the device claims."""
        if self._claimed:
            self.told = None

    def enter(self, epoch: str) -> None:
        """The stream was made anew: what was told in another epoch counts no more."""
        if self.told is not None and self.told.epoch != epoch:
            self.told = None

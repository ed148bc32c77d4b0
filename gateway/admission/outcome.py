"""What a device says when it knocks, and what the desk answers.

All are msgspec Structs: one is made for each knock, and it costs a tenth of a dataclass.
"""

from typing import Final

from msgspec import Struct


class Claim(Struct, frozen=True, gc=False):
    """What a device says when it knocks."""

    tenant: str
    group: str
    holder: bytes
    """Hash of tenant and device."""
    urgent: bool = False
    known: bool = False
    """Whether the device was connected a moment ago."""
    ticket: str = ""


class Admit(Struct, frozen=True, gc=False):
    """The device is admitted."""


class Refuse(Struct, frozen=True, gc=False):
    """The device may come back in `retry_s`, not before. `reason` is rate or overload."""

    reason: str
    retry_s: float
    ticket: str = ""


Outcome = Admit | Refuse
ADMIT: Final = Admit()

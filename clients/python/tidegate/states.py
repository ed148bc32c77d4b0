"""What the device should be like, as the gateway says: which version replaces which. Pure.

A version is `<epoch>-<number>`. The epoch names the gateway's stream of states, and the number
rises within it. A gateway may repeat an older version, because any replica of the stream may answer
it. A stream that was made anew has another epoch, and its numbers start again.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_VERSION_CHARS_MAX: Final = 256
_DIGITS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class State:
    """What the device should be like."""

    version: str
    """It names this state. It says nothing else to an application."""
    desired: dict[str, Any]


class StateRecord(NamedTuple):
    """A state as it is received and kept: `desired` is a JSON object."""

    version: str
    desired: bytes

    def decode(self) -> State:
        """The state, decoded anew, so that no reader can change what another one sees.

        Raises:
            ValueError, RecursionError: `objection` would have named it.
        """
        return State(self.version, json.loads(self.desired))


def replaces(version: str, held: str) -> bool:
    """Whether a state of `version` replaces one of version `held`."""
    epoch, _, number = version.rpartition("-")
    held_epoch, _, held_number = held.rpartition("-")
    if epoch == held_epoch and _is_number(number) and _is_number(held_number):
        return int(number) > int(held_number)
    return version != held


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX


def objection(record: StateRecord) -> str | None:
    """Why a state cannot be used; None if it can."""
    if not 1 <= len(record.version) <= _VERSION_CHARS_MAX:
        return f"a version has 1 to {_VERSION_CHARS_MAX} characters, not {len(record.version)}"
    try:
        desired = json.loads(record.desired)
    except (ValueError, RecursionError) as exc:
        return f"it cannot be read: {exc}"
    if not isinstance(desired, dict):
        return f"it is no object but {type(desired).__name__}"
    return None

"""In what a stream differs from the settings, and whether JetStream can change that. Pure.

The rules hold for nats-server 2.15, and tests check them against it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from nats.js.api import RetentionPolicy, StreamConfig

from gateway.stream.names import AUDITED, STREAMS


class Change(Enum):
    """What happens if a difference is removed."""

    SAFE = "can be changed"
    LOSES = "can be changed, and deletes stored messages"
    IMPOSSIBLE = "JetStream cannot change it"


@dataclass(frozen=True, slots=True)
class Difference:
    """A property of a stream that differs from the settings."""

    stream: str
    field: str
    """Name in JetStream's configuration of a stream."""
    setting: str
    """Name in the settings; empty for a property that Tidegate always needs."""
    found: str
    wanted: str
    change: Change
    advice: str
    """What the operator can do if JetStream cannot change it; else empty."""

    def __str__(self) -> str:
        if self.setting:
            return (
                f"{self.stream}: {self.setting} is {self.wanted} in the settings and {self.found}"
                " in the stream"
            )
        return f"{self.stream}: {self.field} must be {self.wanted} and is {self.found}"


def differences(stream: str, wanted: StreamConfig, found: StreamConfig) -> list[Difference]:
    """The properties in which the stream `found` differs from `wanted`."""
    return [
        Difference(
            stream,
            field,
            rule.setting.format(stream.lower()) if stream in rule.streams else "",
            rule.show(getattr(found, field)),
            rule.show(getattr(wanted, field)),
            change := rule.change(getattr(found, field), getattr(wanted, field)),
            rule.advice if change is Change.IMPOSSIBLE else "",
        )
        for field, rule in _RULES.items()
        if _plain(getattr(found, field)) != _plain(getattr(wanted, field))
    ]


def _plain(value: Any) -> Any:
    """To the server, an unset value, an empty one and "no limit" are the same."""
    if value in (None, False, 0, -1, "", []):
        return None
    return getattr(value, "value", value)


def _safe(_found: Any, _wanted: Any) -> Change:
    return Change.SAFE


def _impossible(_found: Any, _wanted: Any) -> Change:
    return Change.IMPOSSIBLE


def _limit(found: Any, wanted: Any) -> Change:
    """A lower limit deletes the messages beyond it."""
    lower = _plain(wanted) is not None and (_plain(found) is None or wanted < found)
    return Change.LOSES if lower else Change.SAFE


def _only_on(_found: Any, wanted: Any) -> Change:
    """A protection that JetStream can add and never remove."""
    return Change.SAFE if wanted else Change.IMPOSSIBLE


def _retention(found: Any, _wanted: Any) -> Change:
    return Change.IMPOSSIBLE if _plain(found) == RetentionPolicy.WORK_QUEUE.value else Change.SAFE


def _show_plain(value: Any) -> str:
    plain = _plain(value)
    if isinstance(plain, list):
        return ", ".join(str(each) for each in plain)
    return "unset" if plain is None else str(plain)


def _show_number(value: Any) -> str:
    return str(int(_plain(value) or 0))


def _show_bool(value: Any) -> str:
    return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class _Rule:
    setting: str = ""
    change: Callable[[Any, Any], Change] = _safe
    show: Callable[[Any], str] = _show_plain
    streams: tuple[str, ...] = STREAMS
    """Those in which the setting decides; in others the property is always the same."""
    advice: str = (
        "copy its messages to another stream and delete it as an administrator of NATS, or set"
        " another account (nats.user) or data directory (nats.data_dir)"
    )


_KEEP: Final = "keep it true in the settings: JetStream cannot remove this protection"

_RULES: Final = {
    "subjects": _Rule(),
    "retention": _Rule(change=_retention),
    "storage": _Rule(change=_impossible),
    "discard": _Rule(),
    "num_replicas": _Rule("stream.replicas", show=_show_number),
    "max_age": _Rule("stream.{}.max_age_s", _limit, _show_number),
    "max_bytes": _Rule("stream.{}.max_bytes", _limit, _show_number),
    "max_msgs": _Rule(),
    "max_msgs_per_subject": _Rule(),
    "discard_new_per_subject": _Rule(),
    "max_msg_size": _Rule(),
    "duplicate_window": _Rule("stream.duplicate_window_s", show=_show_number),
    "deny_delete": _Rule("stream.deny_delete", _only_on, _show_bool, AUDITED, _KEEP),
    "deny_purge": _Rule("stream.deny_purge", _only_on, _show_bool, AUDITED, _KEEP),
    "sealed": _Rule(change=_impossible),
    "no_ack": _Rule(),
    "allow_atomic": _Rule(),
    "allow_batched": _Rule(),
    "persist_mode": _Rule(change=_impossible),
    "mirror": _Rule(change=_impossible),
    "sources": _Rule(),
    "subject_transform": _Rule(),
}

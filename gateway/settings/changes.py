"""What differs between two readings of the settings. Pure."""

from typing import Final

from pydantic import BaseModel

from gateway.settings.model import Settings

LIVE: Final = frozenset(
    {"admission.rate_per_s", "admission.rate_floor_per_s", "admission.burst", "log.level"}
)
"""The settings that a running gateway takes over at SIGHUP; the others need a restart."""


def changed(before: Settings, after: Settings) -> list[str]:
    """The keys whose values differ, with dots."""
    return _changed(before, after, "")


def _changed(before: BaseModel, after: BaseModel, prefix: str) -> list[str]:
    found = []
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel):
            found += _changed(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}")
    return found

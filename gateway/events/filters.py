"""Types of events as subject filters that the server applies, so that a consumer reads only those.

A type is a literal (`battery.low`) or a prefix that ends with a dot (`battery.`: every type that
begins with it). nats-server refuses a consumer whose filters overlap, so they are reduced first.
"""

from collections.abc import Iterable

from tidegate.wire.grammar import is_message_type

EVERYTHING = ("events.>",)


def is_type_pattern(text: str) -> bool:
    """Whether `text` is a type, or a prefix of types that ends with a dot."""
    return is_message_type(text.removesuffix("."))


def reduced(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns without those that another one covers, sorted."""
    kept: list[str] = []
    # A prefix sorts before all that it covers, and nothing else comes between.
    for pattern in sorted(set(patterns)):
        covered = bool(kept) and kept[-1].endswith(".") and pattern.startswith(kept[-1])
        if not covered:
            kept.append(pattern)
    return tuple(kept)


def subjects(patterns: Iterable[str]) -> tuple[str, ...]:
    """Filter subjects without overlaps; everything if there is no pattern."""
    found = tuple(
        f"events.*.*.{pattern}>" if pattern.endswith(".") else f"events.*.*.{pattern}"
        for pattern in reduced(patterns)
    )
    return found or EVERYTHING

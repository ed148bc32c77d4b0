"""Bounds and times of publishing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """Counts in messages, sizes in bytes, times in seconds."""

    lanes: int = 1
    batch_messages_max: int = 4_000
    batch_bytes_max: int = 2_097_152
    pending_messages_max: int = 100_000
    pending_bytes_max: int = 67_108_864
    ack_timeout_s: float = 5.0
    retry_s: float = 0.1
    retry_max_s: float = 2.0
    hold_after_s: float = 2.0
    duplicate_window_s: float = 120.0
    linger_s: float = 0.0
    lookups: int = 16
    """Questions to the stream at once."""
    question_timeout_s: float = 5.0
    """A question that is not answered by then is asked again."""

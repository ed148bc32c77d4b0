"""Bounds of a device's session."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session. Sizes in bytes, credit in messages.

    The defaults are those of `config/gateway.toml`. The connection enforces `frame_bytes_max`; it
    is here because `welcome` names it.
    """

    message_bytes_max: int = 65_536
    frame_bytes_max: int = 262_144
    json_depth_max: int = 32
    messages_per_frame_max: int = 1_000
    credit_initial: int = 32
    credit_max: int = 256

"""The settings as the limits of each room: milliseconds become seconds, sections become values.

Pure functions, one for each room's own type. A room never sees the settings.
"""

from typing import Final

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.admission import first_knock
from gateway.admission.calendar import CalendarSettings
from gateway.admission.controller import ControllerSettings, Marks
from gateway.admission.credential import CredentialPolicy
from gateway.admission.desk import DeskSettings
from gateway.admission.gcra import KeyedLimiter
from gateway.edge.connection.context import ConnectionLimits
from gateway.edge.connection.side_traffic import SideBudget
from gateway.session.limits import SessionLimits
from gateway.settings import Compression, Credentials, Mark, Settings
from gateway.stream.lanes.limits import PublishLimits

_LIMITER_KEYS_MAX: Final = 100_000
"""Devices, and addresses, whose knocks are counted at once."""
_AHEAD_SLACK_S: Final = 60.0
"""A calendar may be ahead of its horizon by its last block, and by its priority share."""
_DELIVERIES_FLOOR: Final = 0.05
"""The share of `commands.deliveries_per_s` that is delivered however slow the stream is."""


def publish_limits(settings: Settings) -> PublishLimits:
    publish = settings.publish
    return PublishLimits(
        lanes=publish.lanes,
        batch_messages_max=publish.batch_messages,
        batch_bytes_max=publish.batch_bytes,
        pending_messages_max=publish.pending_messages,
        pending_bytes_max=publish.pending_bytes,
        ack_timeout_s=publish.ack_timeout_ms / 1000,
        retry_s=publish.retry_ms / 1000,
        retry_max_s=publish.retry_max_ms / 1000,
        hold_after_s=publish.hold_after_ms / 1000,
        duplicate_window_s=settings.stream.duplicate_window_s,
        linger_s=publish.linger_ms / 1000,
        lookups=settings.session.resume_lookups,
    )


def session_limits(settings: Settings) -> SessionLimits:
    limits, session = settings.limits, settings.session
    return SessionLimits(
        message_bytes_max=limits.message_bytes,
        frame_bytes_max=limits.frame_bytes,
        json_depth_max=limits.json_depth,
        messages_per_frame_max=limits.messages_per_frame,
        credit_initial=session.credit_initial,
        credit_max=session.credit_max,
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    limits, keepalive = settings.limits, settings.keepalive
    return ConnectionLimits(
        head_bytes_max=limits.head_bytes,
        head_timeout_s=limits.head_timeout_ms / 1000,
        frame_bytes_max=limits.frame_bytes,
        fragments_max=limits.fragments,
        write_buffer_bytes_max=limits.write_buffer_bytes,
        slow_reader_timeout_s=limits.slow_reader_timeout_ms / 1000,
        close_timeout_s=limits.close_timeout_ms / 1000,
        keepalive_interval_s=keepalive.interval_ms / 1000,
        keepalive_timeout_s=keepalive.timeout_ms / 1000,
        side=SideBudget(
            frames_per_s=limits.side_frames_per_s,
            frames_burst=limits.side_frames_burst,
            bytes_per_s=limits.side_bytes_per_s,
            bytes_burst=limits.side_bytes_burst,
            patience_s=limits.side_patience_ms / 1000,
        ),
    )


def calendar_settings(settings: Settings) -> CalendarSettings:
    admission = settings.admission
    return CalendarSettings(
        burst=admission.burst,
        horizon_s=admission.horizon_ms / 1000,
        priority_share=admission.priority_share,
        pause_s_max=admission.overload_retry_ms / 1000,
    )


def ticket_ahead_s_max(settings: Settings) -> float:
    """How far ahead the slot of a ticket of another node can be."""
    return 2 * settings.admission.horizon_ms / 1000 + _AHEAD_SLACK_S


def controller_settings(settings: Settings) -> ControllerSettings:
    admission = settings.admission
    return ControllerSettings(
        floor_per_s=admission.rate_floor_per_s,
        ceiling_per_s=admission.rate_per_s,
        marks={
            "puback_p99": _marks(admission.puback_p99_ms, 1000),
            "publish_backlog": _marks(admission.publish_backlog),
            "loop_lag": _marks(admission.loop_lag_ms, 1000),
        },
    )


def delivery_settings(settings: Settings) -> ControllerSettings:
    """Of the rate of queued commands. It falls before R does: from the low marks of R on."""
    ceiling_per_s = settings.commands.deliveries_per_s
    return ControllerSettings(
        floor_per_s=_DELIVERIES_FLOOR * ceiling_per_s,
        ceiling_per_s=ceiling_per_s,
        marks={
            name: Marks(marks.low / 2, marks.low)
            for name, marks in controller_settings(settings).marks.items()
        },
    )


def _marks(mark: Mark, divisor: float = 1) -> Marks:
    return Marks(mark.low / divisor, mark.high / divisor)


def desk_settings(settings: Settings) -> DeskSettings:
    admission = settings.admission
    return DeskSettings(
        burst=admission.burst,
        park_s=admission.park_ms / 1000,
        patience_s=admission.patience_ms / 1000,
        window_s=admission.window_ms / 1000,
        late_s=admission.late_ms / 1000,
        lot_places=admission.lot_places,
        resume_cost=admission.resume_cost,
        horizon_s=admission.horizon_ms / 1000,
        overload_retry_s=admission.overload_retry_ms / 1000,
    )


def device_limiter(settings: Settings) -> KeyedLimiter:
    """How often one device may knock."""
    admission = settings.admission
    return KeyedLimiter(
        rate_per_s=admission.device_knocks_per_s,
        burst=admission.device_knock_burst,
        keys_max=_LIMITER_KEYS_MAX,
    )


def address_limiter(settings: Settings) -> KeyedLimiter:
    """How often one address may knock."""
    admission = settings.admission
    return KeyedLimiter(
        rate_per_s=admission.address_knocks_per_s,
        burst=admission.address_knock_burst,
        keys_max=_LIMITER_KEYS_MAX,
    )


def refusals_per_s(settings: Settings) -> int:
    """Knocks that the node can refuse a second, at least twice what it admits."""
    least_per_s, rate_per_s = settings.session.refusals_per_s, settings.admission.rate_per_s
    return int(first_knock.refusals_per_s(least_per_s, rate_per_s))


def credential_policy(credentials: Credentials) -> CredentialPolicy:
    return CredentialPolicy(
        algorithms=credentials.algorithms,
        audience=credentials.audience,
        issuer=credentials.issuer,
        leeway_s=credentials.leeway_ms / 1000,
    )


def extensions(compression: Compression) -> list[ServerPerMessageDeflateFactory] | None:
    """permessage-deflate, if it is on.

    Both windows are bounded: the operator decides what a connection may cost, not the peer.
    """
    if not compression.enabled:
        return None
    return [
        ServerPerMessageDeflateFactory(
            server_max_window_bits=compression.window_bits,
            client_max_window_bits=compression.window_bits,
            require_client_max_window_bits=True,
            compress_settings={"memLevel": compression.memory_level},
        )
    ]

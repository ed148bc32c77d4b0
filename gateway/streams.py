"""The streams as the settings want them."""

from gateway.settings import Retention, Settings
from gateway.stream.encoding import DEADLETTERS, EVENTS
from gateway.stream.provision import StreamSettings


def stream_settings(settings: Settings) -> dict[str, StreamSettings]:
    """What the settings want of each stream."""
    stream = settings.stream

    def wanted(retention: Retention) -> StreamSettings:
        return StreamSettings(
            replicas=stream.replicas,
            max_age_s=retention.max_age_s,
            max_bytes=retention.max_bytes,
            duplicate_window_s=stream.duplicate_window_s,
            deny_delete=stream.deny_delete,
            deny_purge=stream.deny_purge,
        )

    return {EVENTS: wanted(stream.events), DEADLETTERS: wanted(stream.deadletters)}

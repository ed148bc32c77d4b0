"""The streams the gateway stores in: created if missing, checked if there, never changed.

A stream that differs from the settings is refused with every difference named. Changing it silently
could shorten somebody's retention or open an audit stream to deletion.
"""

from dataclasses import dataclass
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from gateway.stream.encoding import DEADLETTERS, EVENTS
from gateway.stream.errors import IncompatibleServer, IncompatibleStream
from gateway.stream.lane import Strategy

_HEADERS_BYTES_MAX: Final = 4_096  # names are bounded, and so is the detail of a dead letter
_ATOMIC_SINCE: Final = (2, 12, 1)  # first to check duplicates inside a batch
_FAST_SINCE: Final = (2, 14, 0)

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What the operator wants of a stream. Times in seconds, sizes in bytes; 0 is no limit."""

    replicas: int
    max_age_s: float
    max_bytes: int
    duplicate_window_s: float
    deny_delete: bool
    deny_purge: bool


def choose_strategy(version: Version, *, fsync: bool, replicas: int) -> Strategy:
    """How batches are best published on this server (loadtest/README.md has the figures).

    With fsync an atomic batch shares its syncs among its messages. Without, fast ingest has the
    least to do; where the server lacks it, pipelined publishes beat atomic batches on one server
    (which still pay their own syncs) and lose to them on a cluster.
    """
    if version < _ATOMIC_SINCE:
        return Strategy.PLAIN
    if fsync:
        return Strategy.ATOMIC
    if version >= _FAST_SINCE:
        return Strategy.FAST
    return Strategy.ATOMIC if replicas > 1 else Strategy.PLAIN


def server_version(client: Client) -> Version:
    version = client.connected_server_version
    return version.major, version.minor, version.patch


def stream_configs(settings: dict[str, StreamSettings], version: Version) -> list[StreamConfig]:
    """The streams as they should be on a server of `version`."""
    subjects = {EVENTS: "events.>", DEADLETTERS: "deadletters.>"}
    return [
        StreamConfig(
            name=name,
            subjects=[subjects[name]],
            description="Tidegate: " + {EVENTS: "device messages", DEADLETTERS: "rejects"}[name],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            # A full stream refuses; it never drops what was acknowledged to make room.
            discard=DiscardPolicy.NEW,
            num_replicas=wanted.replicas,
            max_age=wanted.max_age_s,
            max_bytes=wanted.max_bytes or -1,
            max_msgs=-1,
            max_consumers=-1,
            duplicate_window=wanted.duplicate_window_s,
            deny_delete=wanted.deny_delete,
            deny_purge=wanted.deny_purge,
            allow_direct=True,
            allow_atomic=True if version >= _ATOMIC_SINCE else None,
            allow_batched=True if version >= _FAST_SINCE else None,
        )
        for name, wanted in settings.items()
    ]


_CHECKED: Final = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "num_replicas",
    "max_age",
    "max_bytes",
    "max_msgs",
    "max_msgs_per_subject",
    "max_msg_size",
    "duplicate_window",
    "deny_delete",
    "deny_purge",
    "sealed",
    "no_ack",
    "allow_atomic",
    "allow_batched",
    "persist_mode",
    "mirror",
    "sources",
    "subject_transform",
)


def check_payload(client: Client, message_bytes_max: int) -> None:
    """Check that the server takes the largest message a device may send.

    It ends the connection of who sends a larger one: the one message would stop all the others.

    Raises:
        IncompatibleServer: its `max_payload` is too small.
    """
    needed = message_bytes_max + _HEADERS_BYTES_MAX
    if client.max_payload < needed:
        raise IncompatibleServer(
            f"max_payload of the nats-server is {client.max_payload} bytes; limits.message_bytes ="
            f" {message_bytes_max} with its headers needs {needed}: raise one or lower the other"
        )


async def provision(client: Client, configs: list[StreamConfig]) -> list[str]:
    """Create what is missing and check what is there.

    Returns:
        The names of the streams created.

    Raises:
        IncompatibleStream: an existing stream differs; the message says in what.
        nats.errors.Error: JetStream did not answer or refused.
    """
    jetstream = client.jetstream()
    created = []
    for config in configs:
        assert config.name is not None
        try:
            info = await jetstream.stream_info(config.name)
        except nats.js.errors.NotFoundError:
            await jetstream.add_stream(config)
            created.append(config.name)
            continue
        differences = list(_differences(config, info.config))
        if differences:
            raise IncompatibleStream(
                f"stream {config.name} exists and differs from the settings: "
                + "; ".join(differences)
                + ". Change the settings or the stream (nats stream edit), then start again."
            )
    return created


def _differences(wanted: StreamConfig, found: StreamConfig) -> list[str]:
    return [
        f"{name} is {_plain(getattr(found, name))}, settings say {_plain(getattr(wanted, name))}"
        for name in _CHECKED
        if _plain(getattr(found, name)) != _plain(getattr(wanted, name))
    ]


def _plain(value: Any) -> Any:
    """Unset, empty and no limit are the same thing to the server."""
    if value in (None, False, 0, -1, "", []):
        return None
    return getattr(value, "value", value)

"""The streams that the gateway stores in: created if missing, changed on request only.

The gateway refuses streams that differ from the settings, and names all differences of all streams
in the words of the settings. A silent change could shorten somebody's retention, or let somebody
delete from an audit stream. `tidegate provision` shows the changes and makes them.
"""

import copy
from dataclasses import dataclass
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from gateway.session.desired import STATE_BYTES_MAX
from gateway.stream.errors import IncompatibleServer, IncompatibleStream
from gateway.stream.lanes.batch import Strategy
from gateway.stream.names import AUDITED, COMMANDS, DEADLETTERS, EVENTS, PRESENCE, STATE
from gateway.stream.provisioning.differences import Change, Difference, differences

_HEADERS_BYTES_MAX: Final = 4_096
"""Room for headers: names are bounded, and so is the detail of a dead letter."""
ATOMIC_SINCE: Final = (2, 12, 1)
"""The first version that checks for duplicates inside a batch."""
_FAST_SINCE: Final = (2, 14, 0)

COMMANDS_PER_DEVICE_MAX: Final = 1_000
"""Commands that may wait for one device; a further one is refused. A command has some six facts."""
PRESENCE_FACTS_MAX: Final = 100
"""Presence facts that are kept of one device."""

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Purpose:
    """What a stream is for, and what follows from that whatever the settings are."""

    description: str
    subjects: tuple[str, ...]
    messages_per_subject_max: int = -1
    message_bytes_max: int = -1
    refuse_per_subject: bool = False
    """Whether a message beyond that number is refused; else the oldest of its subject goes."""


_PURPOSES: Final = {
    EVENTS: _Purpose("device messages", ("events.>",)),
    DEADLETTERS: _Purpose("rejects", ("deadletters.>",)),
    STATE: _Purpose("desired states", ("state.*.*",), 1, STATE_BYTES_MAX + _HEADERS_BYTES_MAX),
    # Not `commands.>`: JetStream would answer the requests on `commands.*.*` with its PubAcks.
    COMMANDS: _Purpose(
        "queued commands",
        ("commands.queue.*.*", "commands.status.*.*.*"),
        COMMANDS_PER_DEVICE_MAX,
        refuse_per_subject=True,
    ),
    PRESENCE: _Purpose("presence facts", ("presence.*.*",), PRESENCE_FACTS_MAX),
}


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What the operator wants of a stream. Times in seconds, sizes in bytes; 0 is no limit."""

    replicas: int
    max_age_s: float
    max_bytes: int
    duplicate_window_s: float
    deny_delete: bool
    deny_purge: bool


def choose_strategy(version: Version, *, fsync: bool, replicas: int, alone: bool) -> Strategy:
    """How batches are best published on this server (loadtest/README.md has the figures).

    With fsync, all messages of an atomic batch share its syncs. Without fsync, linked messages cost
    the server the least, as long as no other node stores between them, and where the server checks
    links, which it does not do for a replicated stream. Fast ingest comes next. If the server has
    no fast ingest, pipelined publishes are faster than atomic batches on one server, because each
    batch still syncs, and slower on a cluster.

    Args:
        version: of the server.
        fsync: whether it syncs each write before it acknowledges it.
        replicas: of the stream.
        alone: whether this node is the only one that stores in the stream.
    """
    if version < ATOMIC_SINCE:
        return Strategy.PLAIN
    if fsync:
        return Strategy.ATOMIC
    if version >= _FAST_SINCE:
        return Strategy.LINKED if alone and replicas == 1 else Strategy.FAST
    return Strategy.ATOMIC if replicas > 1 else Strategy.PLAIN


def server_version(client: Client) -> Version:
    version = client.connected_server_version
    return version.major, version.minor, version.patch


def stream_configs(settings: dict[str, StreamSettings], version: Version) -> list[StreamConfig]:
    """The streams as they should be on a server of `version`."""
    return [
        StreamConfig(
            name=name,
            subjects=list(_PURPOSES[name].subjects),
            description=f"Tidegate: {_PURPOSES[name].description}",
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            # A full stream refuses messages. It must never delete acknowledged ones to make room.
            discard=DiscardPolicy.NEW,
            num_replicas=wanted.replicas,
            max_age=wanted.max_age_s,
            max_bytes=wanted.max_bytes or -1,
            max_msgs=-1,
            max_msgs_per_subject=_PURPOSES[name].messages_per_subject_max,
            discard_new_per_subject=_PURPOSES[name].refuse_per_subject,
            max_msg_size=_PURPOSES[name].message_bytes_max,
            max_consumers=-1,
            duplicate_window=wanted.duplicate_window_s,
            deny_delete=wanted.deny_delete and name in AUDITED,
            deny_purge=wanted.deny_purge and name in AUDITED,
            allow_direct=True,
            allow_atomic=True if version >= ATOMIC_SINCE else None,
            allow_batched=True if version >= _FAST_SINCE else None,
        )
        for name, wanted in settings.items()
    ]


def check_payload(client: Client, message_bytes_max: int) -> None:
    """Check that the server takes the largest message a device may send.

    If a message is larger, the server ends the connection: one message would stop all others.

    Raises:
        IncompatibleServer: its `max_payload` is too small.
    """
    needed = message_bytes_max + _HEADERS_BYTES_MAX
    if client.max_payload < needed:
        raise IncompatibleServer(
            f"max_payload of the nats-server is {client.max_payload} bytes; limits.message_bytes ="
            f" {message_bytes_max} with its headers needs {needed}: raise one or lower the other"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """In what the streams differ from the settings."""

    missing: tuple[str, ...]
    differences: tuple[Difference, ...]

    def of(self, change: Change) -> list[Difference]:
        """The differences of one kind."""
        return [each for each in self.differences if each.change is change]

    @property
    def empty(self) -> bool:
        """Whether the streams are as the settings want them."""
        return not self.missing and not self.differences


async def plan(client: Client, configs: list[StreamConfig]) -> Plan:
    """Compare the streams with what the settings want.

    Raises:
        nats.errors.Error: JetStream did not answer or refused.
    """
    found = await _streams(client, configs)
    missing = tuple(name for name, config in found.items() if config is None)
    found_differences = [
        difference
        for wanted in configs
        if (there := found[_name(wanted)]) is not None
        for difference in differences(_name(wanted), wanted, there)
    ]
    return Plan(missing, tuple(found_differences))


async def provision(client: Client, configs: list[StreamConfig]) -> list[str]:
    """Create the streams that are missing, and check the others.

    Returns:
        The names of the streams that were created.

    Raises:
        IncompatibleStream: streams differ. Nothing was created; the message has all differences.
        nats.errors.Error: JetStream did not answer or refused.
    """
    planned = await plan(client, configs)
    if planned.differences:
        lines = "\n".join(f"  {each}" for each in planned.differences)
        raise IncompatibleStream(
            f"the streams differ from the settings:\n{lines}\n"
            "Change the settings, or the streams: `tidegate provision --plan` shows what would be"
            " done, `tidegate provision --apply` does it"
        )
    for config in configs:
        if config.name in planned.missing:
            await client.jetstream().add_stream(config)
    return list(planned.missing)


async def apply(client: Client, configs: list[StreamConfig], *, accept_loss: bool) -> Plan:
    """Create the streams that are missing, and change what JetStream can change.

    Properties that the settings do not name keep their values.

    Args:
        client: of a user who may create and update the streams.
        configs: what the settings want.
        accept_loss: make changes that delete stored messages, too.

    Returns:
        The streams that were created, and the differences that were removed.

    Raises:
        nats.errors.Error: JetStream did not answer or refused.
    """
    planned = await plan(client, configs)
    found = await _streams(client, configs)
    jetstream = client.jetstream()
    wanted_changes = {Change.SAFE, Change.LOSES} if accept_loss else {Change.SAFE}
    done = []
    for wanted in configs:
        there = found[_name(wanted)]
        if there is None:
            await jetstream.add_stream(wanted)
            continue
        changes = [
            each
            for each in planned.differences
            if each.stream == wanted.name and each.change in wanted_changes
        ]
        if changes:
            changed = copy.copy(there)
            for each in changes:
                setattr(changed, each.field, getattr(wanted, each.field))
            await jetstream.update_stream(changed)
            done += changes
    return Plan(planned.missing, tuple(done))


def _name(config: StreamConfig) -> str:
    assert config.name is not None
    return config.name


async def _streams(client: Client, configs: list[StreamConfig]) -> dict[str, StreamConfig | None]:
    jetstream = client.jetstream()
    found: dict[str, StreamConfig | None] = {}
    for config in configs:
        try:
            found[_name(config)] = (await jetstream.stream_info(_name(config))).config
        except nats.js.errors.NotFoundError:
            found[_name(config)] = None
    return found

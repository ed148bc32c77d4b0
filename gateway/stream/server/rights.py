"""What each user of NATS may do: the gateway, operators, and consumers of the stream.

The embedded server gives exactly these rights; `config/README.md` lists them for an operator's own
NATS. Each user has a prefix of its own for inboxes, so no user hears the answers to another one.
No user may delete or purge a stream. The gateway may delete single messages of COMMANDS only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.stream.names import AUDITED, COMMANDS, DEADLETTERS, EVENTS, PRESENCE, STATE, STREAMS
from gateway.stream.server.roles import Role


@dataclass(frozen=True, slots=True)
class Rights:
    """The subjects that a user may use; all others are denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    subscribe_not: tuple[str, ...] = ()
    responses: bool = False
    """Whether the user may answer each request that it receives, once."""

    def permissions(self) -> dict[str, Any]:
        """The `permissions` of a user in nats-server's configuration."""
        return {
            "publish": {"allow": list(self.publish)},
            "subscribe": {"allow": list(self.subscribe), "deny": list(self.subscribe_not)},
            "allow_responses": self.responses,
        }


def rights_of(role: Role, rule_subjects: Sequence[str] = ()) -> Rights:
    """The rights of a user.

    Args:
        role: the user.
        rule_subjects: where rules may publish what they derive; for consumers.
    """
    if role is Role.GATEWAY:
        return _gateway()
    return _operators() if role is Role.OPERATORS else _consumers(rule_subjects)


def _gateway() -> Rights:
    return Rights(
        publish=(
            "events.>",
            "deadletters.>",
            "commands.status.*.*.*",
            "presence.*.*",
            *_api(
                STREAMS,
                "STREAM.INFO.{}",
                "STREAM.CREATE.{}",
                "STREAM.MSG.GET.{}",
                "DIRECT.GET.{}",
            ),
            *_api(
                (STATE, COMMANDS, PRESENCE),
                "DIRECT.GET.{}.>",
                "CONSUMER.CREATE.{}.>",
                "CONSUMER.MSG.NEXT.{}.*",
                "CONSUMER.DELETE.{}.*",
            ),
            f"$JS.API.STREAM.MSG.DELETE.{COMMANDS}",
        ),
        subscribe=(f"{Role.GATEWAY.inbox_prefix}.>", "commands.*.*"),
        responses=True,
    )


def _operators() -> Rights:
    return Rights(
        publish=(
            "commands.>",
            "state.*.*",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.LIST",
            *_api(STREAMS, "STREAM.INFO.{}", "STREAM.CREATE.{}", "STREAM.UPDATE.{}"),
            *_reading(STREAMS),
            *_LEASES,
            *_REDRIVING,
            *_SAVING,
        ),
        # All inboxes except those of other users, so that tools such as `nats` need no option.
        subscribe=("_INBOX.>",),
        subscribe_not=tuple(f"{other.inbox_prefix}.>" for other in (Role.GATEWAY, Role.CONSUMERS)),
    )


def _consumers(rule_subjects: Sequence[str]) -> Rights:
    return Rights(
        publish=(
            "commands.*.*",
            "deadletters.*.*.*.>",
            *_reading(AUDITED),
            *_LEASES,
            *_LOOKING_UP,
            *rule_subjects,
        ),
        subscribe=(f"{Role.CONSUMERS.inbox_prefix}.>",),
    )


def _api(streams: Sequence[str], *requests: str) -> tuple[str, ...]:
    """Requests to JetStream, for each of `streams`."""
    return tuple(f"$JS.API.{each.format(stream)}" for stream in streams for each in requests)


def _reading(streams: Sequence[str]) -> tuple[str, ...]:
    """To create consumers, to read through them, to acknowledge, and to look up single messages."""
    return (
        *_api(
            streams,
            "STREAM.MSG.GET.{}",
            "DIRECT.GET.{}",
            "DIRECT.GET.{}.>",
            "CONSUMER.CREATE.{}",
            "CONSUMER.CREATE.{}.>",
            "CONSUMER.DURABLE.CREATE.{}.*",
            "CONSUMER.INFO.{}.*",
            "CONSUMER.NAMES.{}",
            "CONSUMER.LIST.{}",
            "CONSUMER.MSG.NEXT.{}.*",
            "CONSUMER.DELETE.{}.*",
        ),
        *(f"$JS.{kind}.{stream}.>" for stream in streams for kind in ("ACK", "FC")),
    )


_LEASES: Final = (
    "$KV.TIDEGATE_RULES.>",
    "$JS.API.STREAM.CREATE.KV_TIDEGATE_RULES",
    "$JS.API.STREAM.MSG.GET.KV_TIDEGATE_RULES",
)
"""The bucket with the owner and the position of each rule. Consumers create it."""

_REDRIVING: Final = (
    "redriven.*",
    "redrives.>",
    *(
        f"$JS.API.{each}"
        for each in (
            "STREAM.INFO.KV_TIDEGATE_RULES",
            "STREAM.INFO.REDRIVES",
            "STREAM.CREATE.REDRIVES",
            "STREAM.MSG.GET.REDRIVES",
            "CONSUMER.CREATE.REDRIVES.>",
            "CONSUMER.MSG.NEXT.REDRIVES.*",
            "CONSUMER.DELETE.REDRIVES.*",
        )
    ),
)
"""To record, and to look up, which dead letters were sent again."""

_LOOKING_UP: Final = (
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.CONSUMER.CREATE.*.>",
    "$JS.API.CONSUMER.MSG.NEXT.*.*",
    "$JS.API.CONSUMER.DELETE.*.*",
    "$JS.API.STREAM.MSG.GET.REDRIVES",
)
"""To find the stream that holds a rule's target, and what the rule has stored in it already; to
read the dead letters that were sent again."""

SAVED: Final = (
    "KV_TIDEGATE_RULES",
    "REDRIVES",
    COMMANDS,
    PRESENCE,
    STATE,
    DEADLETTERS,
    EVENTS,
)
"""The streams of a gateway and its consumers, in the order in which a backup saves them."""

_SAVING: Final = tuple(
    each.format(stream)
    for stream in SAVED
    for each in (
        "$JS.API.STREAM.INFO.{}",
        "$JS.API.STREAM.SNAPSHOT.{}",
        "$JS.API.STREAM.RESTORE.{}",
        "$JS.SNAPSHOT.ACK.{}.*",
        "$JS.SNAPSHOT.RESTORE.{}.*",
    )
)
"""To save a stream to a file, and to make it anew from there."""

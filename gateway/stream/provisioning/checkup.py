"""Whether NATS lets the gateway do its work: rights and streams that are missing.

A right to publish is tried with a message that nothing stores: JetStream refuses one that expects
to be stored in another stream, and ignores a request without a reply. The server answers a denied
command before the PONG of the next flush, so no attempt waits for a timeout.
"""

import re
from typing import Final

import nats.js.errors
from nats.aio.client import Client

from gateway.stream.names import STREAMS
from gateway.stream.server.rights import rights_of
from gateway.stream.server.roles import Role

_FLUSH_S: Final = 5
_TIMEOUT_S: Final = 3.0
_PROBE: Final = "tidegate.rights.probe"
_PROBE_WORD: Final = "tidegate-rights-probe"
_HEADERS: Final = {"Nats-Expected-Stream": "TIDEGATE-RIGHTS-PROBE"}
_DENIED: Final = re.compile(r'for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_CREATE: Final = "STREAM.CREATE"
"""Needed only where the streams are missing."""


class Denials:
    """Permissions that the server denied on one connection."""

    def __init__(self) -> None:
        self._subjects: dict[str, set[str]] = {"publish": set(), "subscription": set()}

    def add(self, text: str) -> None:
        """A permissions violation, in the server's words."""
        found = _DENIED.search(text)
        if found is not None:
            self._subjects[found[1].lower()].add(found[2].lower())

    def forget_publishing(self) -> None:
        """Rights to publish are tried again: they may have been granted since."""
        self._subjects["publish"].clear()

    def publish(self, right: str) -> bool:
        """Whether a probe of `right` was denied."""
        return _probe_of(right).lower() in self._subjects["publish"]

    def subscribe(self, right: str) -> bool:
        """Whether a subscription within `right` was denied."""
        words = right.lower().split(".")
        return any(_within(each.split("."), words) for each in self._subjects["subscription"])


def needed() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Subjects the gateway must be allowed to publish to, and to subscribe to."""
    rights = rights_of(Role.GATEWAY)
    return tuple(right for right in rights.publish if _CREATE not in right), rights.subscribe


async def missing_rights(client: Client, denials: Denials) -> list[str]:
    """Try the rights the gateway needs.

    Args:
        client: a connection on which all subscriptions have been made.
        denials: filled by that connection's errors.

    Returns:
        What is missing, as `publish events.>`.

    Raises:
        nats.errors.Error: the connection was lost.
    """
    publish, subscribe = needed()
    denials.forget_publishing()
    for right in publish:
        await client.publish(_probe_of(right), b"", headers=_HEADERS)
    # Twice: nats-py writes a PING ahead of the messages that still wait to be written.
    await client.flush(timeout=_FLUSH_S)
    await client.flush(timeout=_FLUSH_S)
    return [
        *(f"publish {right}" for right in publish if denials.publish(right)),
        *(f"subscribe {right}" for right in subscribe if denials.subscribe(right)),
    ]


async def missing_streams(client: Client) -> list[str]:
    """The streams that do not exist.

    Raises:
        nats.errors.Error: JetStream did not answer, or refused.
        TimeoutError: as above.
    """
    jetstream = client.jetstream(timeout=_TIMEOUT_S)
    missing = []
    for stream in STREAMS:
        try:
            await jetstream.stream_info(stream)
        except nats.js.errors.NotFoundError:
            missing.append(stream)
    return missing


def _within(subject: list[str], right: list[str]) -> bool:
    """Whether a subject is within a right, which may have wildcards."""
    if right[-1] == ">":
        right = right[:-1]
        if len(subject) <= len(right):
            return False
        subject = subject[: len(right)]
    return len(subject) == len(right) and all(
        word in ("*", token) for token, word in zip(subject, right, strict=True)
    )


def _probe_of(right: str) -> str:
    return right.replace(">", _PROBE).replace("*", _PROBE_WORD)

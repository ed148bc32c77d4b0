"""Dead letters of all stages as one kind of thing: what they hold, and which of them are meant.

Letters of the gateway (`ingest`, `schema`) hold the message as the device sent it. Letters of
consumers (`rule`, `sink`) hold the event's data, and its `ce-*` headers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from gateway.events.redrives import COUNT_HEADER

STAGES: Final = ("ingest", "schema", "rule", "sink")
_SCHEMA: Final = "schema"
_GATEWAY_TOKENS: Final = 3


class Letter(Struct, frozen=True, gc=False):
    """One message of DEADLETTERS. `seq` is its sequence there."""

    seq: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    stored_at_ns: int

    @property
    def tenant(self) -> str:
        return self.subject.split(".")[1]

    @property
    def device(self) -> str:
        return self.subject.split(".")[2]

    @property
    def of_gateway(self) -> bool:
        """Whether the gateway wrote it; else a consumer did."""
        return self.subject.count(".") + 1 == _GATEWAY_TOKENS

    @property
    def stage(self) -> str:
        if self.of_gateway:
            return _SCHEMA if self.error == _SCHEMA else "ingest"
        return self.headers.get("Tidegate-Stage", "")

    @property
    def consumer(self) -> str:
        """The rule or sink that wrote it; empty for the gateway."""
        return self.headers.get("Tidegate-Consumer", "")

    @property
    def error(self) -> str:
        return self.headers.get("Tidegate-Error", "")

    @property
    def detail(self) -> str:
        return unquote(self.headers.get("Tidegate-Detail", ""))

    @property
    def type(self) -> str:
        """The message type, empty if it cannot be read."""
        found = self.headers.get("ce-type")
        if found is not None or not self.of_gateway:
            return found or ""
        message_type = (self.message() or {}).get("type")
        return message_type if isinstance(message_type, str) else ""

    @property
    def redrives(self) -> int:
        """How often its event had been sent again to the consumer before this letter."""
        text = self.headers.get(COUNT_HEADER, "")
        return int(text) if text.isdecimal() else 0

    @property
    def truncated(self) -> bool:
        """Whether it holds only the beginning of what was sent."""
        return "Tidegate-Truncated" in self.headers

    def message(self) -> dict[str, Any] | None:
        """What the device sent, if it can be read; of letters of the gateway."""
        try:
            found = msgspec.json.decode(self.data)
        except (msgspec.DecodeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def letter_of(subject: str, headers: bytes, data: bytes, seq: int, stored_at_ns: int) -> Letter:
    """Makes a letter of what a reader of the stream hands out."""
    lines = headers.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    found = {name: value.strip() for name, _, value in pairs}
    return Letter(seq, subject, found, data, stored_at_ns)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant. None is any."""

    stage: str | None = None
    consumer: str | None = None
    error: str | None = None
    tenant: str | None = None
    device: str | None = None
    message_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def subjects(self) -> list[str]:
        """Filters for the server, without overlaps."""
        prefix = f"deadletters.{self.tenant or '*'}.{self.device or '*'}"
        if self.stage in ("ingest", _SCHEMA):
            return [prefix]
        if self.stage is not None:
            return [f"{prefix}.{self.stage}.{self.consumer or '*'}"]
        if self.device is None:  # one filter: of several, the server tests each subject
            return [f"deadletters.{self.tenant}.>" if self.tenant else "deadletters.>"]
        return [prefix, f"{prefix}.>"]

    def includes(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        stored_s = letter.stored_at_ns / 1e9
        if self.since is not None and stored_s < self.since.timestamp():
            return False
        if self.until is not None and stored_s >= self.until.timestamp():
            return False
        return (
            self.stage in (None, letter.stage)
            and self.consumer in (None, letter.consumer)
            and self.error in (None, letter.error)
            and self.tenant in (None, letter.tenant)
            and self.device in (None, letter.device)
            and (self.message_type is None or self.message_type == letter.type)
        )

"""The payload that `pick` makes of an event: an object of members, paths into `data` and constants.

Values are copied as JSON text, so a number keeps the digits that the device sent.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Raw

from gateway.events.columns import Constant, DataPath, EventMember, Member, Source
from gateway.events.errors import PickError
from gateway.events.event import Event
from gateway.events.paths import PathReader, Texts

_NO_TEXTS: Final[Texts] = ()
Part = Callable[[Event, Texts], bytes | None]
"""The JSON text of one member, None if the event has no value for it."""


class Picker:
    """Makes payloads by one `pick`."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        paths = list(dict.fromkeys(s.names for s in sources.values() if isinstance(s, DataPath)))
        self._reader = PathReader(paths) if paths else None
        self._parts = [
            (msgspec.json.encode(name) + b":", _part(source, paths))
            for name, source in sources.items()
        ]

    def payload(self, event: Event) -> bytes:
        """A JSON object. A member without a value is left out.

        Raises:
            PickError: a path leads into data that is no JSON object.
        """
        texts = _NO_TEXTS
        if self._reader is not None:
            if not event.data.lstrip(b" \t\r\n").startswith(b"{"):
                raise PickError("data is no JSON object, and pick wants a member of it")
            try:
                texts = self._reader.read(event.data)
            except (msgspec.DecodeError, RecursionError) as exc:
                raise PickError(f"data is no JSON: {exc}") from None
        found = [(name, part(event, texts)) for name, part in self._parts]
        return b"{" + b",".join(name + text for name, text in found if text is not None) + b"}"


def _part(source: Source, paths: list[tuple[str, ...]]) -> Part:
    if isinstance(source, EventMember):
        return _MEMBERS[source.name]
    if isinstance(source, Constant):
        fixed = msgspec.json.encode(source.value)
        return lambda _event, _texts: fixed
    place = paths.index(source.names)

    def part(_event: Event, texts: Texts) -> bytes | None:
        text = texts[place]
        return bytes(text) if isinstance(text, bytes | Raw) else None

    return part


def _text_or_none(text: str) -> bytes | None:
    return msgspec.json.encode(text) if text else None


def _stored_at(event: Event) -> bytes:
    return msgspec.json.encode(datetime.fromtimestamp(event.stored_at_ns / 1e9, UTC))


_MEMBERS: Final[Mapping[Member, Part]] = {
    "tenant": lambda event, _: msgspec.json.encode(event.tenant),
    "device": lambda event, _: msgspec.json.encode(event.device),
    "type": lambda event, _: msgspec.json.encode(event.type),
    "outbox": lambda event, _: _text_or_none(event.outbox),
    "time": lambda event, _: _text_or_none(event.time),
    "seq": lambda event, _: b"%d" % event.seq if event.seq else None,
    "stream_seq": lambda event, _: b"%d" % event.stream_seq,
    "stored_at": lambda event, _: _stored_at(event),
    "data": lambda event, _: event.data,
}

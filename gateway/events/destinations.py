"""Where a rule sends what it derives: `nats:<subject>`, `http(s)://...`, `command:<type>`.

What its text says is checked here. Which stream holds the subject, and whether EVENTS would read
it again, is found at the start of `tidegate route`.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tidegate.wire.grammar import is_message_type

SUBJECT_CHARS_MAX: Final = 255
URL_CHARS_MAX: Final = 2_048
_PLACEHOLDERS: Final = ("tenant", "device", "type")
_RESERVED: Final = (
    "events",
    "deadletters",
    "redrives",
    "redriven",
    "presence",
    "state",
    "commands",
    "_INBOX",
)
"""First tokens of subjects that mean something to Tidegate or to NATS clients."""
_TYPE: Final = "{type}"
_placeholder = re.compile(r"\{([^{}]*)\}")
_token_fullmatch = re.compile(r"[^\s.*>\x00-\x1f\x7f{}]+").fullmatch


@dataclass(frozen=True, slots=True)
class NatsDestination:
    """A subject, made for each event from `template`."""

    template: str

    @property
    def subject_format(self) -> bytes:
        """The subject for the operator `%`, which takes the names in `names_in` as bytes. Without
        names it is the subject itself.

        Names of an event are allow-listed, so each subject that comes of it is a valid one.
        """
        text = self.template.replace("%", "%%") if self.names_in else self.template
        return _placeholder.sub("%b", text).encode()

    @property
    def names_in(self) -> tuple[int, ...]:
        """What the template names: 0 the tenant, 1 the device, 2 the type, in its order."""
        return tuple(_PLACEHOLDERS.index(name) for name in _placeholder.findall(self.template))

    @property
    def filter(self) -> str:
        """A subject with wildcards that covers all subjects of this destination."""
        return ".".join(
            ">" if token == _TYPE else "*" if "{" in token else token
            for token in self.template.split(".")
        )

    def __str__(self) -> str:
        return f"nats:{self.template}"


@dataclass(frozen=True, slots=True)
class HttpDestination:
    """A receiver of CloudEvents."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class CommandDestination:
    """A command of this type for the device which sent the event."""

    message_type: str

    def __str__(self) -> str:
        return f"command:{self.message_type}"


Destination = NatsDestination | HttpDestination | CommandDestination


def destination_of(written: object) -> Destination:
    """
    Raises:
        ValueError: it is no destination.
    """
    if isinstance(written, Destination):
        return written
    if not isinstance(written, str):
        raise ValueError("write nats:<subject>, https://... or command:<type>")  # noqa: TRY004  # as pydantic expects it
    scheme, found, rest = written.partition(":")
    if scheme == "nats" and found:
        return NatsDestination(_template(rest))
    if scheme in ("http", "https") and found:
        return HttpDestination(_url(written))
    if scheme == "command" and found:
        if not is_message_type(rest):
            raise ValueError(f"{rest!r} is no type of a command: tokens joined by dots")
        return CommandDestination(rest)
    raise ValueError(f"{_shortened(written)} is none of nats:, http://, https://, command:")


def _template(text: str) -> str:
    if len(text) > SUBJECT_CHARS_MAX:
        raise ValueError(f"the subject is longer than {SUBJECT_CHARS_MAX} characters")
    for name in _placeholder.findall(text):
        if name not in _PLACEHOLDERS:
            raise ValueError(f"{{{name}}} is none of {{tenant}}, {{device}}, {{type}}")
    for token in _placeholder.sub("x", text).split("."):
        if _token_fullmatch(token) is None:
            raise ValueError(f"the subject {text!r} has a token that is empty or not literal")
    first, *rest = text.split(".")
    if first in _RESERVED or first.startswith("$"):
        raise ValueError(f"subjects that begin with {first} are not for rules")
    if "{" in first:
        raise ValueError("the first token of the subject is literal: a device must not choose it")
    if _TYPE in text and (rest[-1] != _TYPE or text.count(_TYPE) > 1):
        raise ValueError(f"{_TYPE} may be several tokens: it stands at the end, by itself")
    return text


def _url(text: str) -> str:
    if len(text) > URL_CHARS_MAX or not text.isascii() or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(f"a URL has at most {URL_CHARS_MAX} characters of ASCII and no spaces")
    try:
        parts = urlsplit(text)
        port_valid = parts.port != 0
    except ValueError as exc:
        raise ValueError(f"the URL is malformed: {exc}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with credentials would be shown in logs and pages")
    if not parts.hostname or not port_valid:
        raise ValueError("the URL names no host")
    if parts.fragment:
        raise ValueError("the part behind # is never sent: remove it")
    return text


def _shortened(text: str) -> str:
    """Without what may be a credential."""
    return repr(text.partition("@")[0].partition("//")[0][:40])

"""The alphabet of every name that can reach a NATS subject or a header.

Device ids, tenants, groups, outbox ids and message types are allow-listed here and nowhere else, so
that nothing a device sends can name another subject, break a header line or forge a label.
"""

import re
from typing import Final

TOKEN_MAX_CHARS: Final = 64
TYPE_MAX_TOKENS: Final = 8

_NAME: Final = r"[A-Za-z0-9_-]{1,64}"
# fullmatch, never match-with-$: `$` also matches before a trailing newline.
_token_fullmatch = re.compile(_NAME).fullmatch
_type_fullmatch = re.compile(rf"{_NAME}(?:\.{_NAME}){{0,{TYPE_MAX_TOKENS - 1}}}").fullmatch
# RFC 3339 date-time. Range checks are in the pattern so that one match settles it.
_time_fullmatch = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch


def is_token(text: str) -> bool:
    """Whether `text` is one name: a device id, tenant, group or outbox id."""
    return _token_fullmatch(text) is not None


def is_message_type(text: str) -> bool:
    """Whether `text` is a message type: one to eight tokens joined by dots."""
    return _type_fullmatch(text) is not None


def is_timestamp(text: str) -> bool:
    """Whether `text` is an RFC 3339 date-time with an offset."""
    return _time_fullmatch(text) is not None

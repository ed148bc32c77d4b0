"""The characters of every name that can reach a NATS subject or a header.

Only this module says which device ids, tenants, groups, outbox ids and message types are allowed.
So nothing that a device sends can name another subject, break a header line or forge a label.
"""

import calendar
import re
from typing import Final

TYPE_MAX_TOKENS: Final = 8

_NAME: Final = r"[A-Za-z0-9_-]{1,64}"
# fullmatch, never match-with-$: `$` also matches before a trailing newline.
_token_fullmatch = re.compile(_NAME).fullmatch
_type_fullmatch = re.compile(rf"{_NAME}(?:\.{_NAME}){{0,{TYPE_MAX_TOKENS - 1}}}").fullmatch
# RFC 3339, section 5.6, which allows `T` and `Z` in lower case. The pattern contains the calendar
# (the days of each month, the leap years), so that one match decides nearly every case.
_LEAP_YEAR: Final = (
    r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
)
_DATE: Final = (
    r"(?!0000)(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
_time_fullmatch = re.compile(
    rf"{_DATE}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|(60))(?:\.[0-9]{{1,9}})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_DAY_MINUTES: Final = 24 * 60


def is_token(text: str) -> bool:
    """Whether `text` is one name: a device id, tenant, group or outbox id."""
    return _token_fullmatch(text) is not None


def is_message_type(text: str) -> bool:
    """Whether `text` is a message type: one to eight tokens joined by dots."""
    return _type_fullmatch(text) is not None


def is_timestamp(text: str) -> bool:
    """Whether `text` is an RFC 3339 date-time with an offset, of a day that exists.

    A second 60 is allowed where leap seconds occur: at the end of a month in UTC (section 5.7).
    """
    match = _time_fullmatch(text)
    return match is not None and (match[1] is None or _ends_a_month(text))


def _ends_a_month(text: str) -> bool:
    """Whether the minute of a well-formed `text` is the last one of a month in UTC."""
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    minute = int(text[11:13]) * 60 + int(text[14:16])
    if text[-1] not in "Zz":
        offset = int(text[-5:-3]) * 60 + int(text[-2:])
        minute += offset if text[-6] == "-" else -offset
    day += minute // _DAY_MINUTES
    last = day in (0, calendar.monthrange(year, month)[1])  # 0: the last of the month before
    return last and minute % _DAY_MINUTES == _DAY_MINUTES - 1

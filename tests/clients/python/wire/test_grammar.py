import calendar
import datetime as dt
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.wire.grammar import is_message_type, is_timestamp, is_token

HOSTILE = [
    "", ".", "..", "a.", ".a", "a..b", "a b", " a", "a ", "a\n", "a\r\nb", "a\x00", "a*", "*", ">",
    "a.>", "$JS", "$JS.API", "a/b", "a\\b", "a:b", "a'b", 'a"b', "a{b}", "ä", "é", "日本", "ａ",
    "a\u200b", "\u202ea", "a\ud800", "٣", "𝟘", "a=b", "a,b", "a#b", "a%20", "a\tb", "x" * 65,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_hostile_name_is_a_token_or_a_type(text):
    assert not is_token(text)
    assert not is_message_type(text)


@given(st.text(max_size=80))
def test_a_token_is_exactly_the_allow_list(text):
    allowed = 1 <= len(text) <= 64 and all(
        char.isascii() and (char.isalnum() or char in "_-") for char in text
    )
    assert is_token(text) == allowed


@given(st.lists(st.text("aZ09_-.", max_size=20), max_size=10))
def test_a_type_is_one_to_eight_tokens(parts):
    text = ".".join(parts)
    tokens = text.split(".")
    assert is_message_type(text) == (len(tokens) <= 8 and all(map(is_token, tokens)))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10:00:00Z", "2026-11-23T10:00:00.123456789+05:30", "2026-11-23t10:00:00z",
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2024-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z", "2026-11-23T10:00:00-00:00",
    ],
)  # fmt: skip
def test_timestamps_of_rfc3339(text):
    assert is_timestamp(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23", "2026-11-23T10:00:00", "2026-13-23T10:00:00Z", "2026-11-32T10:00:00Z",
        "2026-11-23T24:00:00Z", "2026-11-23 10:00:00Z", "2026-11-23T10:00:00Z\n",
        "2026-11-23T10:00:00+25:00", "2026-11-23T10:00:00.Z", "٢٠٢٦-11-23T10:00:00Z",
        "2026-11-23T10:00:00.1234567890Z", "2026-11-23T10:60:00Z", "2026-11-23T10:00:61Z",
        "2026-02-30T10:00:00Z", "0000-01-01T00:00:00Z", "0000-02-29T00:00:00Z",
        "2026-11-23T10:00:00+00:60", "2026-11-23T10:00:00 Z", "2026-11-23T10:00:00+0530",
    ],
)  # fmt: skip
def test_texts_that_are_not_timestamps_are_refused(text):
    assert not is_timestamp(text)


@given(st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32))
@example(1900, 2, 29)
@example(2000, 2, 29)
@example(2024, 2, 29)
@example(2025, 2, 29)
@example(2026, 4, 31)
def test_only_days_that_exist_are_allowed(year, month, day):
    try:
        dt.date(year, month, day)
    except ValueError:
        exists = False
    else:
        exists = True
    assert is_timestamp(f"{year:04}-{month:02}-{day:02}T00:00:00Z") == exists


def test_every_day_of_four_centuries_and_no_other():
    years = range(1899, 2302)
    found = [
        (year, month, day)
        for year in years
        for month in (1, 2, 4)
        for day in (28, 29, 30, 31)
        if is_timestamp(f"{year}-{month:02}-{day}T00:00:00Z")
    ]
    assert found == [
        (year, month, day)
        for year in years
        for month in (1, 2, 4)
        for day in (28, 29, 30, 31)
        if day <= calendar.monthrange(year, month)[1]
    ]


@pytest.mark.parametrize(
    ("text", "lawful"),
    [
        ("2016-12-31T23:59:60Z", True),
        ("2016-12-31T23:59:60.5z", True),
        ("2015-06-30T23:59:60Z", True),
        ("1990-12-31T15:59:60-08:00", True),  # RFC 3339, section 5.8
        ("2017-01-01T05:29:60+05:30", True),
        ("2017-01-01T00:59:60+01:00", True),
        ("2024-02-29T23:59:60Z", True),
        ("2024-02-28T23:59:60Z", False),
        ("2016-12-30T23:59:60Z", False),
        ("2016-12-31T23:58:60Z", False),
        ("2016-12-31T23:59:60-08:00", False),
        ("2016-12-31T23:59:60+01:00", False),
        ("2017-01-01T23:59:60Z", False),
        ("2017-01-02T00:59:60+01:00", False),
        ("9999-12-31T23:59:60Z", True),
        ("9999-12-31T23:59:60-00:01", False),
        ("0001-01-01T00:00:60+00:01", True),
    ],
)
def test_a_leap_second_is_at_the_end_of_a_month_in_utc(text, lawful):
    assert is_timestamp(text) == lawful


@given(st.from_regex(re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z"), fullmatch=True))
def test_every_name_of_the_contract_is_a_token(text):
    assert is_token(text)

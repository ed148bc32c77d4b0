import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.grammar import is_message_type, is_timestamp, is_token

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
    ["2026-11-23T10:00:00Z", "2026-11-23T10:00:00.123456789+05:30", "2016-12-31T23:59:60Z"],
)
def test_timestamps_of_rfc3339(text):
    assert is_timestamp(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23", "2026-11-23T10:00:00", "2026-13-23T10:00:00Z", "2026-11-32T10:00:00Z",
        "2026-11-23T24:00:00Z", "2026-11-23 10:00:00Z", "2026-11-23T10:00:00Z\n",
        "2026-11-23T10:00:00+25:00", "2026-11-23T10:00:00.Z", "٢٠٢٦-11-23T10:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_timestamp(text):
    assert not is_timestamp(text)


@given(st.from_regex(re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z"), fullmatch=True))
def test_every_name_of_the_contract_is_a_token(text):
    assert is_token(text)

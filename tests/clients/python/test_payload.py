import dataclasses
import datetime as dt
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import Rejected
from tidegate.payload import encode_payload


def encode(data, bytes_max=1_000, depth_max=8):
    return encode_payload(data, bytes_max=bytes_max, depth_max=depth_max)


def nested(levels):
    data = 1
    for _ in range(levels):
        data = [data]
    return data


@dataclasses.dataclass
class Reading:
    soc: float
    at: dt.datetime


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (math.nan, "nan"),
        ({"a": [math.inf]}, "inf"),
        ([-math.inf], "-inf"),
        (Reading(math.nan, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), "nan"),
        (b"x", "bytes"),
        ({"a": bytearray(b"x")}, "bytes"),
        ([memoryview(b"x")], "bytes"),
        (nested(9), "8 levels"),
        (nested(5_000), "8 levels"),
        ({"a": object()}, "no JSON form"),
        ({(1, 2): 3}, "no JSON form"),
        ("\ud800", "no JSON form"),
        ("x" * 999, "1001 bytes"),
    ],
)  # fmt: skip
def test_values_that_would_arrive_changed_are_refused(data, said):
    with pytest.raises(Rejected, match=said):
        encode(data)


def test_a_number_no_codec_writes_is_refused():
    with pytest.raises(Rejected, match="no JSON form"):
        encode(10**5_000, bytes_max=10_000)


def test_a_loop_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(Rejected):
        encode(loop)


def test_limits_are_inclusive():
    assert encode(nested(8)) == b"[" * 8 + b"1" + b"]" * 8
    assert len(encode("x" * 998)) == 1_000


def test_other_types_with_a_json_form_are_encoded():
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert json.loads(encode(Reading(7.5, at))) == {"soc": 7.5, "at": "2026-01-01T00:00:00Z"}
    assert json.loads(encode({1: (2, 3)})) == {"1": [2, 3]}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_data_is_read_back_unchanged_or_is_refused(data):
    try:
        encoded = encode(data, 100_000, 30)
    except Rejected:
        return
    assert json.loads(encoded) == data

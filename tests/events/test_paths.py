"""The fast way to read paths gives what the plain way gives."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from gateway.events.paths import PathReader

names = st.sampled_from(["a", "b", "c d", "ü"])
paths = st.lists(names, min_size=1, max_size=4).map(tuple)
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=4)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def plainly(document, path):
    for name in path:
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    return document


@given(documents, st.lists(paths, min_size=1, max_size=5, unique=True), st.booleans())
def test_paths_read_what_is_there(document, wanted, spaced):
    text = json.dumps(document, indent=1 if spaced else None).encode()
    read = PathReader(wanted).read(text)
    assert len(read) == len(wanted)
    for path, value in zip(wanted, read, strict=True):
        found = None if value is None or value is UNSET else json.loads(bytes(value))
        assert found == plainly(document, path)


def test_a_number_keeps_its_digits():
    (value,) = PathReader([("a",)]).read(b'{"a": 1.10000000000000000000001}')
    assert bytes(value) == b"1.10000000000000000000001"


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":}', b"\xff", b'{"b":"\xff","a":1'])
def test_what_is_not_json_is_an_error(text):
    with pytest.raises(msgspec.DecodeError):
        PathReader([("a",)]).read(text)

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.inference import SchemaProposal
from gateway.events.schemas import compile_schemas

values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def proposed(*data):
    proposal = SchemaProposal("battery.low")
    for each in data:
        proposal.add(json.dumps(each).encode())
    return proposal.schema()


@given(st.lists(values, min_size=1, max_size=8))
def test_what_it_was_made_from_fits_it(data):
    schemas = compile_schemas({"t.json": json.dumps(proposed(*data)).encode()}, "reject")
    for each in data:
        assert schemas.check("t", json.dumps(each).encode()) is None


def test_members_that_were_always_there_are_required():
    found = proposed(
        {"soc": 7, "at": "2026-11-25T10:00:00Z", "cells": [1, 2.5]}, {"soc": 7.5, "name": "x"}
    )
    assert found["type"] == "object"
    assert found["required"] == ["soc"]
    assert found["properties"] == {
        "at": {"type": "string", "format": "date-time"},
        "cells": {"type": "array", "items": {"type": "number"}},
        "name": {"type": "string"},
        "soc": {"type": "number"},
    }


def test_an_object_with_very_many_members_is_a_map():
    found = proposed(*({f"cell-{number}": 1} for number in range(300)))
    assert found["type"] == "object"
    assert "properties" not in found


def test_what_is_not_json():
    with pytest.raises(msgspec.DecodeError):
        SchemaProposal("t").add(b"{")

"""The quick check of plain schemas against the validator: a quick yes is always a yes."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.quick_check import quick_check
from gateway.events.schemas import compile_schemas

BATTERY = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A battery",
    "type": "object",
    "required": ["soc", "place"],
    "properties": {
        "soc": {"type": "integer", "minimum": 0, "maximum": 100},
        "voltage": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1000.5},
        "state": {"enum": ["driving", "parked"]},
        "place": {
            "type": "object",
            "required": ["lat"],
            "properties": {"lat": {"type": "number"}, "odd name": {"type": "boolean"}},
        },
        "cells": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "note": {"type": "string", "minLength": 1, "maxLength": 3},
        "any": {"type": "array"},
    },
}

NUMBERS = st.one_of(
    st.integers(-2, 102),
    st.sampled_from([71.0, 0.0, -0.0, 1e2, 100.5, 1e308, 2**53, 2**53 + 1, 10**30, -(10**400)]),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.just("parked")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = [*BATTERY["properties"], "more"]
EVENTS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {
            "soc": NUMBERS,
            "place": st.fixed_dictionaries({"lat": NUMBERS}, optional={"odd name": VALUES}),
        },
        optional={name: VALUES for name in NAMES if name not in ("soc", "place")},
    ),
)
SCHEMAS = st.recursive(
    st.one_of(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["integer", "number"])},
            optional={
                name: st.integers(-3, 101) | st.floats(-3, 101)
                for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("string")},
            optional={"minLength": st.integers(0, 3), "maxLength": st.integers(0, 3)},
        ),
        st.just({"type": "boolean"}),
        st.just({"enum": ["parked", ""]}),
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda items, most: {"type": "array", "items": items, "maxItems": most},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda members, needed: {
                "type": "object",
                "properties": members,
                "required": sorted(members)[:needed],
            },
            st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
            st.integers(0, 3),
        ),
    ),
    max_leaves=4,
)


def agrees(schema, value):
    fits = quick_check(schema)
    text = json.dumps(value).encode()
    if fits is not None and fits(text):
        assert jsonschema_rs.Draft202012Validator(schema).is_valid(json.loads(text))


@given(EVENTS)
def test_what_the_quick_check_accepts_fits_the_schema(value):
    agrees(BATTERY, value)


@given(SCHEMAS, EVENTS | VALUES)
def test_it_holds_for_schemas_of_any_plain_form(schema, value):
    agrees(schema, value)


def test_a_plain_event_gets_a_quick_yes_and_others_none():
    fits = quick_check(BATTERY)
    assert fits(b'{"soc":71,"place":{"lat":1.5,"x":[]},"state":"parked","cells":[1],"more":null}')
    assert not fits(b'{"soc":101,"place":{"lat":1}}')
    assert not fits(b'{"soc":1,"place":{}}')
    assert not fits(b'{"soc":1,"place":{"lat":1},"state":null}')


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": ["integer", "null"]},
        {"type": "object", "properties": {}, "additionalProperties": False},
        {"type": "object", "required": ["not declared"]},
        {"type": "object", "properties": {"x": {"$ref": "other.json"}}},
        {"type": "string", "pattern": "^a"},
        {"type": "string", "format": "date"},
        {"type": "integer", "maximum": 2**60},
        {"enum": ["a", 1]},
        {"type": "integer", "multipleOf": 3},
    ],
)
def test_other_schemas_are_left_to_the_validator(schema):
    assert quick_check(schema) is None


def test_the_offence_is_that_of_the_validator():
    schemas = compile_schemas({"battery.low.json": json.dumps(BATTERY).encode()}, "allow")
    assert schemas.check("battery.low", b'{"soc":71,"place":{"lat":1}}') is None
    assert schemas.check("battery.low", b'{"soc":170,"place":{"lat":1}}') == (
        "data.soc: 170 is greater than the maximum of 100"
    )

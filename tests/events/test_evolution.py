import json

import pytest

from gateway.events.errors import SchemaError
from gateway.events.evolution import Compatible, compare
from gateway.events.schemas import registry_of, validator_of

NOTHING = registry_of({})


def battery(**changes):
    return {
        "type": "object",
        "properties": {"soc": {"type": "number", "minimum": 0, "maximum": 100}, **changes},
        "required": ["soc"],
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (battery(), battery()),
        (battery(), {**battery(), "required": []}),
        (battery(), battery(soc={"type": "number", "maximum": 1000})),
        ({"type": "integer"}, {"type": "number"}),
        ({"enum": ["a", "b"]}, {"enum": ["a", "b", "c"]}),
        ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 9}),
        (False, {"type": "string"}),
        ({"type": "string"}, True),
    ],
)
def test_what_only_loosens_is_compatible(old, new):
    assert compare("t.json", old, new, NOTHING).verdict is Compatible.YES


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (battery(), battery(soc={"type": "number", "maximum": 90})),
        (battery(), {**battery(), "required": ["soc", "at"]}),
        (battery(), {**battery(), "additionalProperties": False}),
        (battery(), battery(soc={"type": "integer"})),
        (battery(), {"type": "array"}),
        ({"type": "string", "maxLength": 9}, {"type": "string", "maxLength": 5}),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}),
        (
            {"type": "integer", "exclusiveMinimum": 38, "exclusiveMaximum": 42},
            {"enum": [39, 40]},
        ),
        ({"type": "array", "items": battery()}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "array"}, {"type": "array", "maxItems": 3}),
        ({"anyOf": [{"type": "string"}, battery()]}, {"type": "string"}),
        (
            battery(pos={"type": "object", "properties": {"lat": {"type": "number"}}}),
            battery(pos={"type": "object", "properties": {"lat": {"type": "string"}}}),
        ),
    ],
)
def test_what_tightens_is_shown_by_an_event_that_no_longer_fits(old, new):
    found = compare("t.json", old, new, NOTHING)
    assert found.verdict is Compatible.NO
    assert found.example is not None
    example = json.loads(found.example)
    assert validator_of("t.json", old, NOTHING).is_valid(example)
    assert not validator_of("t.json", new, NOTHING).is_valid(example)


def test_what_nobody_can_prove_is_not_called_compatible():
    found = compare(
        "t.json",
        {"type": "string", "pattern": "^[a-z]{3,40}$"},
        {"type": "string", "pattern": "^[a-z]{4,40}|[a-z]{3}$"},
        NOTHING,
    )
    assert found.verdict is not Compatible.YES


def test_references_into_the_folder_are_followed():
    registry = registry_of({"common.json": {"$defs": {"percent": {"maximum": 100}}}})
    old = {"$ref": "common.json#/$defs/percent"}
    assert compare("t.json", old, {"maximum": 100}, registry).verdict is not Compatible.NO
    assert compare("t.json", old, {"maximum": 99}, registry).verdict is Compatible.NO


def test_a_schema_that_cannot_be_used_is_an_error():
    with pytest.raises(SchemaError):
        compare("t.json", True, {"type": "objekt"}, NOTHING)

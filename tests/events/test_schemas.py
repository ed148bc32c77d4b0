import json

import pytest

from gateway.events.errors import SchemaError
from gateway.events.schemas import DETAIL_CHARS_MAX, compile_schemas

BATTERY = {
    "type": "object",
    "properties": {
        "soc": {"$ref": "common.json#/$defs/percent"},
        "at": {"type": "string", "format": "date-time"},
        "cells": {"type": "array", "items": {"type": "number"}},
        "name": {"type": "string", "pattern": "^(a+)+$"},
    },
    "required": ["soc"],
}
COMMON = {"$defs": {"percent": {"type": "number", "minimum": 0, "maximum": 100}}}


def schemas(unknown_type="allow", **files):
    wanted = files or {"battery.low": BATTERY, "common": COMMON}
    contents = {f"{name}.json": json.dumps(document).encode() for name, document in wanted.items()}
    return compile_schemas(contents, unknown_type)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"soc": 7}, None),
        ({"soc": 7.0, "more": 1}, None),
        ({"soc": 170}, "data.soc: 170 is greater than the maximum of 100"),
        ({}, 'data: "soc" is a required property'),
        ({"soc": 1, "cells": [1, "x"]}, 'data.cells[1]: "x" is not of type "number"'),
        ({"soc": 1, "at": "yesterday"}, 'data.at: "yesterday" is not a "date-time"'),
        ([], 'data: [] is not of type "object"'),
        ({"soc": 10**40}, "is greater than the maximum of 100"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(data, said):
    found = schemas().check("battery.low", json.dumps(data).encode())
    assert found == said or (said is not None and found is not None and said in found)


def test_the_detail_is_bounded():
    found = schemas().check("battery.low", json.dumps({"soc": "x" * 10_000}).encode())
    assert found is not None
    assert len(found) == DETAIL_CHARS_MAX


def test_a_type_without_a_schema():
    assert schemas().check("door.open", b"7") is None
    assert schemas("reject").check("door.open", b"7") == "there is no schema for type door.open"


def test_labels_cannot_be_invented():
    known = schemas()
    assert known.label("battery.low") == "battery.low"
    assert known.label("anything") == "other"


def test_a_pattern_that_would_backtrack_for_ever_does_not():
    text = json.dumps({"soc": 1, "name": "a" * 50_000 + "b"}).encode()
    assert schemas().check("battery.low", text) is not None


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"$ref": "https://example.com/x.json"}, "https://example.com/x.json"),
        ({"$ref": "file:///etc/passwd"}, "file:///etc/passwd"),
        ({"$ref": "nothing.json"}, "nothing.json"),
        ({"pattern": "(?=a)b"}, "(?=a)b"),
        ({"pattern": "(a)\\1"}, "is not a"),
        ({"type": "objekt"}, "objekt"),
        ({"format": "phone"}, "phone"),
        (7, "Expected"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(document, said):
    with pytest.raises(SchemaError, match=r"bad\.type\.json: ") as caught:
        schemas(**{"bad.type": document})
    assert said in str(caught.value)


def test_a_file_that_is_not_json_or_has_no_type_for_a_name():
    with pytest.raises(SchemaError) as caught:
        compile_schemas({"a.json": b"{", "b.json": b"\xff"}, "allow")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "a.json",
        "b.json",
    ]
    with pytest.raises(SchemaError, match="no message type"):
        compile_schemas({"a b.json": b"{}"}, "allow")

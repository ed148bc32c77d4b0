"""What is exported is valid by the schema that the AsyncAPI project publishes."""

import gzip
import json
from pathlib import Path

import jsonschema_rs
import pytest

from gateway.events.asyncapi import asyncapi

SCHEMA = Path(__file__).parent / "data" / "asyncapi-3.0.0.json.gz"
COMMON = {"$defs": {"percent": {"type": "number", "maximum": 100}}}
BATTERY = {
    "type": "object",
    "properties": {
        "soc": {"$ref": "common.json#/$defs/percent"},
        "cells": {"type": "array", "items": {"$ref": "#/$defs/cell"}},
    },
    "$defs": {"cell": {"type": "number"}},
}


@pytest.fixture(scope="module")
def validator():
    return jsonschema_rs.validator_for(json.loads(gzip.decompress(SCHEMA.read_bytes())))


@pytest.fixture
def document():
    schemas = {"battery.low.json": BATTERY, "battery_low.json": {}, "common.json": COMMON}
    return asyncapi(schemas, title="Fleet", version="1")


def test_it_is_valid(validator, document):
    validator.validate(document)
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate(document | {"channels": []})


def test_every_reference_leads_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    found = set(references(document))
    assert "#/components/schemas/common/$defs/percent" in found
    assert "#/components/schemas/battery.low/$defs/cell" in found
    for reference in found:
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_two_types_that_look_alike_stay_two(document):
    assert {"battery.low", "battery_low"} <= set(document["channels"])
    assert document["channels"]["battery.low"]["address"] == "events.{tenant}.{device}.battery.low"

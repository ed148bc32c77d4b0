"""Schemas at the door of a running gateway."""

import json

import pytest

from gateway.events.document import Schemas
from gateway.events.errors import SchemaError
from gateway.node.reloaded.schemas_in_force import SchemasInForce, read_folder
from support.gateways import running_gateway
from support.stored import read_embedded
from support.wire import raw_device

BATTERY = {"type": "object", "properties": {"soc": {"type": "number", "maximum": 100}}}


def schema_folder(tmp_path, **more):
    folder = tmp_path / "schemas"
    folder.mkdir(exist_ok=True)
    for name, document in ({"battery.low": BATTERY} | more).items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def events_file(tmp_path, **section):
    schema_folder(tmp_path)
    lines = [f"{name} = {json.dumps(value)}" for name, value in section.items()]
    path = tmp_path / "events.toml"
    path.write_text("\n".join(["[schemas]", 'folder = "schemas"', *lines]))
    return path


def battery(seq, soc, message_type="battery.low"):
    return {"seq": seq, "type": message_type, "data": {"soc": soc}}


async def test_what_does_not_fit_is_a_dead_letter_and_its_device_is_told(tmp_path):
    settings = {"events.file": events_file(tmp_path)}
    async with running_gateway(tmp_path, **settings) as gateway, raw_device(gateway) as device:
        await device.say([battery(1, 7), battery(2, 170), battery(3, 8), battery(4, 500, "other")])
        detail = "data.soc: 170 is greater than the maximum of 100"
        assert await device.hear_named("reject") == {"seq": 2, "error": "schema", "detail": detail}
        await device.hear_ack(4)
        stored = await read_embedded(gateway.data_dir)
        assert [each.seq for each in stored] == [1, 3, 4]
        (letter,) = await read_embedded(gateway.data_dir, "DEADLETTERS")
        assert (letter.seq, letter.headers["Tidegate-Error"]) == (2, "schema")
        assert json.loads(letter.data) == battery(2, 170)
        page = gateway.metrics.exposition()[0].decode()
        assert 'tidegate_schema_violations_total{type="battery.low"} 1.0' in page


async def test_it_can_be_stored_with_a_mark_instead(tmp_path):
    settings = {"events.file": events_file(tmp_path, invalid="mark")}
    async with running_gateway(tmp_path, **settings) as gateway, raw_device(gateway) as device:
        await device.say([battery(1, 7), battery(2, 170)])
        await device.hear_ack(2)
        first, second = await read_embedded(gateway.data_dir)
        assert "Tidegate-Schema-Error" not in first.headers
        assert second.headers["Tidegate-Schema-Error"] == (
            "data.soc: 170 is greater than the maximum of 100"
        )


async def test_a_type_without_a_schema_can_be_refused(tmp_path):
    settings = {"events.file": events_file(tmp_path, unknown_type="reject")}
    async with running_gateway(tmp_path, **settings) as gateway, raw_device(gateway) as device:
        await device.say(battery(1, 7, "door.open"))
        assert (await device.hear_named("reject"))["detail"] == (
            "there is no schema for type door.open"
        )
        page = gateway.metrics.exposition()[0].decode()
        assert 'tidegate_schema_violations_total{type="other"} 1.0' in page


def test_a_broken_folder_leaves_the_old_schemas_in_force(tmp_path):
    folder = schema_folder(tmp_path)
    violations = []
    schemas = SchemasInForce(Schemas(folder=folder), violations.append)
    assert schemas.problem("battery.low", b'{"soc":170}') is not None
    (folder / "battery.low.json").write_text("{")
    schemas.reload()
    assert schemas.problem("battery.low", b'{"soc":170}') is not None
    schema_folder(tmp_path, **{"battery.low": True})
    schemas.reload()
    assert schemas.problem("battery.low", b'{"soc":170}') is None
    assert violations == ["battery.low"] * 2


def test_a_mark_cannot_break_a_header(tmp_path):
    folder = schema_folder(tmp_path)
    schemas = SchemasInForce(Schemas(folder=folder, invalid="mark"), lambda _label: None)
    line = schemas.mark("battery.low", b'{"soc":"a\\r\\nNats-Msg-Id:x"}')
    assert line.endswith(b"\r\n")
    assert line.count(b"\r") == line.count(b"\n") == 1


@pytest.mark.parametrize("make", ["missing", "empty", "file"])
def test_a_folder_that_cannot_be_used(tmp_path, make):
    folder = tmp_path / "schemas"
    if make == "empty":
        folder.mkdir()
    elif make == "file":
        folder.write_text("")
    with pytest.raises(SchemaError, match=r"schemas\.folder"):
        read_folder(Schemas(folder=folder))

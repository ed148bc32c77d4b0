"""Events as rows: every kind of column, every kind of value."""

import pytest

from gateway.events.cells import TableColumn
from gateway.events.columns import Constant, DataPath, EventMember, row_encoder
from gateway.events.errors import ColumnError, RowError
from gateway.events.event import Event

HEADERS = (
    b"NATS/1.0\r\nNats-Msg-Id:default:veh-1:o1:12\r\nce-specversion:1.0\r\nce-id:o1:12\r\n"
    b"ce-time:2026-11-25T10:00:00.123Z\r\n\r\n"
)


def event(data=b"{}", headers=HEADERS):
    return Event("events.acme.veh-1.battery.low", headers, data, 5, 1764064800123456789)


def encode(source, type_name, data=b"{}", *, not_null=False):
    columns = [TableColumn("c", type_name, not_null=not_null)]
    return row_encoder("s", "t", {"c": source}, columns).encode(event(data)).removesuffix(b"\n")


@pytest.mark.parametrize(
    ("member", "type_name", "cell"),
    [
        ("tenant", "text", b"acme"),
        ("device", "varchar", b"veh-1"),
        ("type", "text", b"battery.low"),
        ("outbox", "text", b"o1"),
        ("seq", "int4", b"12"),
        ("stream_seq", "int8", b"5"),
        ("stream_seq", "numeric", b"5"),
        ("time", "timestamptz", b"2026-11-25T10:00:00.123Z"),
        ("stored_at", "timestamptz", b"2025-11-25 10:00:00.123456+00"),
        ("data", "jsonb", b'{"a": "x\\\\n"}'),
    ],
)
def test_members(member, type_name, cell):
    assert encode(EventMember(member), type_name, b'{"a": "x\\n"}') == cell


def test_a_sequence_beyond_the_column_is_refused():
    columns = [TableColumn("c", "int2")]
    encoder = row_encoder("s", "t", {"c": EventMember("stream_seq")}, columns)
    with pytest.raises(RowError, match="40000 is beyond int2"):
        encoder.encode(Event("events.a.b.c", HEADERS, b"{}", 40_000, 0))


@pytest.mark.parametrize(
    ("type_name", "value", "cell"),
    [
        ("text", b'"plain"', b"plain"),
        ("text", b'"a\\tb\\\\c\\u00e9"', b"a\\tb\\\\c\xc3\xa9"),
        ("text", b'"\\ud83d\\ude00"', "😀".encode()),
        ("int4", b"7", b"7"),
        ("int4", b"-2147483648", b"-2147483648"),
        ("int4", b"7.0", b"7"),
        ("int4", b"7e2", b"700"),
        ("float8", b"1.10", b"1.10"),
        ("numeric", b"12345678901234567890.123456789", b"12345678901234567890.123456789"),
        ("bool", b"true", b"true"),
        ("timestamptz", b'"2026-11-25T10:00:00+01:00"', b"2026-11-25T10:00:00+01:00"),
        ("jsonb", b'[1,\n"\\\\"]', b'[1,\\n"\\\\\\\\"]'),
        ("json", b'{"a":\t1}', b'{"a":\\t1}'),
        ("json", b'{"a":\r1}', b'{"a":\\r1}'),
        ("json", b'{"a":1}', b'{"a":1}'),
        ("inet", b'"127.0.0.1"', b"127.0.0.1"),
        ("text", b"null", b"\\N"),
    ],
)  # fmt: skip
def test_values_that_fit(type_name, value, cell):
    assert encode(DataPath(("v",)), type_name, b'{"u":1,"v":' + value + b"}") == cell


@pytest.mark.parametrize(
    ("type_name", "value", "said"),
    [
        ("text", b"7", "7 is not a string"),
        ("text", b'"a\\u0000b"', "no NUL character"),
        ("int4", b'"7"', "is not an integer"),
        ("int4", b"7.5", "7.5 is not an integer"),
        ("int4", b"2147483648", "beyond int4"),
        ("int8", b"9" * 5_000, "beyond int8"),
        ("int8", b"1e400", "beyond int8"),
        ("int8", b"-1e999999", "beyond int8"),
        ("float8", b"1e400", "beyond float8"),
        ("float8", b"1E400", "beyond float8"),
        ("float8", b"true", "is not a number"),
        ("bool", b"1", "is not a boolean"),
        ("timestamptz", b'"yesterday"', "RFC 3339"),
        ("timestamptz", b'"2026-02-30T00:00:00Z"', "RFC 3339"),
        ("timestamptz", b"1764064800", "RFC 3339"),
    ],
)
def test_values_that_do_not_fit(type_name, value, said):
    with pytest.raises(RowError, match=said) as caught:
        encode(DataPath(("v",)), type_name, b'{"v":' + value + b"}")
    assert caught.value.column == "c"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b"7", b'{"v":null}', b'{"v":{"w":null}}', b'{"v":3}']
)
def test_what_is_absent_is_null_and_refused_where_null_is(data):
    path = DataPath(("v", "w"))
    assert encode(path, "int4", data) == b"\\N"
    with pytest.raises(RowError, match="NOT NULL"):
        encode(path, "int4", data, not_null=True)


@pytest.mark.parametrize("data", [b"{", b"", b'{"v":"\\ud800"}'])
def test_data_that_is_not_json_is_refused(data):
    with pytest.raises(RowError, match="not JSON"):
        encode(DataPath(("v",)), "text", data)


@pytest.mark.parametrize(
    ("value", "type_name", "cell"),
    [("x", "text", b"x"), (7, "int4", b"7"), (1.5, "float8", b"1.5"), (True, "bool", b"true")],
)
def test_constants(value, type_name, cell):
    assert encode(Constant(value), type_name) == cell


def test_every_column_that_does_not_fit_is_named():
    columns = [
        TableColumn("soc", "int4"),
        TableColumn("at", "bool"),
        TableColumn("id", "int8", generated=True),
        TableColumn("needed", "text", not_null=True),
        TableColumn("optional", "text", not_null=True, has_default=True),
    ]
    sources = {
        "sock": DataPath(("soc",)),
        "at": EventMember("time"),
        "id": EventMember("seq"),
        "soc": Constant("x"),
    }
    with pytest.raises(ColumnError) as caught:
        row_encoder("s", "t", sources, columns)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("sink s, table t, column ") for line in lines)
    for line, said in zip(
        lines,
        ("needed: it is NOT NULL", "is it soc?", "cannot hold time", "generates", "does not fit"),
        strict=True,
    ):
        assert said in line

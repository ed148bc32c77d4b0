"""Events that no table takes are dead letters, and the others of their batch are in."""

import psycopg
import pytest

from gateway.consumers.postgres.target import PostgresTarget
from gateway.events.document import PostgresSink
from gateway.events.event import Event
from gateway.events.position import Position

CREATED = "2026-11-25T10:00:00Z"
TABLE = """\
CREATE TABLE readings (
    n bigint, name text, soc smallint, at timestamptz, voltage real, price numeric(6, 2),
    whole jsonb
)"""
COLUMNS = {
    "n": "stream_seq",
    "name": "data.name",
    "soc": "data.soc",
    "at": "data.at",
    "voltage": "data.voltage",
    "price": "data.price",
    "whole": "data",
}


def event(seq, data):
    headers = b"NATS/1.0\r\nNats-Msg-Id:default:veh-1:o1:%d\r\n\r\n" % seq
    return Event("events.default.veh-1.reading", headers, data, seq, 10**18)


@pytest.fixture
async def target(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLE)
    sink = PostgresSink.model_validate(
        {"name": "readings", "table": "readings", "columns": COLUMNS}
    )
    target = PostgresTarget(sink, database, owner="me")
    await target.open()
    await target.claim()
    await target.begin(Position(CREATED, 0))
    yield target
    await target.close()


def column(database, name):
    with psycopg.connect(database) as connection:
        return [row[0] for row in connection.execute(f"SELECT {name} FROM readings ORDER BY n")]


def deep(levels):
    return b'{"x":' + b"[" * levels + b"]" * levels + b"}"


BAD = {
    "NUL in text": (rb'{"name":"a\u0000b"}', "column", "NUL"),
    "NUL in JSON": (rb'{"other":"a\u0000b"}', "untranslatable_character", "u0000"),
    "lone surrogate in text": (rb'{"name":"\ud800"}', "column", "not JSON"),
    "lone surrogate in JSON": (rb'{"other":"\udc00x"}', None, ""),
    "bytes that are no UTF-8": (b'{"name":"\xff\xfe"}', None, ""),
    "integer beyond the column": (b'{"soc":32768}', "column", "beyond int2"),
    "huge integer": (b'{"soc":' + b"9" * 400 + b"}", "column", "beyond int2"),
    "fraction for an integer": (b'{"soc":7.5}', "column", "7.5 is not an integer"),
    "number beyond a float": (b'{"voltage":1e39}', "numeric_value_out_of_range", "real"),
    "number beyond a decimal": (b'{"price":123456.7}', "numeric_value_out_of_range", "precision"),
    "no such day": (b'{"at":"2026-02-30T00:00:00Z"}', "column", "RFC 3339"),
    "year zero": (b'{"at":"0000-01-01T00:00:00Z"}', None, ""),
    "no offset": (b'{"at":"2026-01-01T00:00:00"}', "column", "RFC 3339"),
    "deep JSON": (deep(100_000), "column", "deep"),
    "JSON too deep for a quick look": (deep(5_000), "column", "deep"),
    "no JSON": (b'{"soc":', "column", "not JSON"),
    "nothing": (b"", "column", "not JSON"),
}


@pytest.mark.parametrize(("data", "error", "said"), BAD.values(), ids=BAD.keys())
async def test_it_is_a_letter_with_the_reason(target, database, data, error, said):
    buried = []

    async def bury(rejected):
        buried.extend(rejected)

    batch = [event(1, b'{"soc":1}'), event(2, data), event(3, b'{"soc":3}')]
    assert await target.write(batch, Position(CREATED, 3), bury) == 1
    assert column(database, "n") == [1, 3]
    (only,) = buried
    assert only.event.data == data
    if error is not None:
        assert only.error == error
    assert said in only.detail
    assert 0 < len(only.detail) < 1_000


GOOD = {
    "a string of 64 KiB": (b'{"name":"' + b"x" * 65_536 + b'"}', "length(name)", 65_536),
    "escapes": (rb'{"name":"a\tb\\c\nd"}', "name", "a\tb\\c\nd"),
    "what looks like COPY's NULL and its end": (rb'{"name":"\\N\n\\.\n"}', "name", "\\N\n\\.\n"),
    "a pair of surrogates": (rb'{"name":"\ud83d\ude00"}', "name", "\U0001f600"),
    "JSON that is nested": (deep(200), "soc", None),
    "the largest small integer": (b'{"soc":-32768}', "soc", -32_768),
    "an integer written as a fraction": (b'{"soc":7.0}', "soc", 7),
    "the last year of the grammar": (b'{"at":"9999-12-31T23:59:59Z"}', "soc", None),
}


@pytest.mark.parametrize(("data", "query", "value"), GOOD.values(), ids=GOOD.keys())
async def test_it_is_a_row(target, database, data, query, value):
    async def bury(rejected):
        raise AssertionError(rejected)

    await target.write([event(1, data)], Position(CREATED, 1), bury)
    assert column(database, query) == [value]

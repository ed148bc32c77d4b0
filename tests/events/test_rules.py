import json
import tomllib
from datetime import UTC, datetime

import pytest

from gateway.events.columns import Constant, DataPath, EventMember
from gateway.events.destinations import (
    CommandDestination,
    HttpDestination,
    NatsDestination,
    destination_of,
)
from gateway.events.document import parse_events
from gateway.events.errors import EventsFileError, PickError
from gateway.events.event import Event
from gateway.events.linting import never
from gateway.events.payloads import Picker

RULE = """
[[rule]]
name = "low"
when = { type = ["battery.low"], data = { soc = [{ numeric = ["<", 20] }] } }
to = "nats:alerts.{tenant}.{device}.{type}"
pick = { vehicle = "device", soc = "data.soc", source = { constant = "tidegate" } }
"""


def parse(text):
    return parse_events(tomllib.loads(text), "events.toml")


def event(data=b'{"soc":7.50,"pos":{"lat":1}}', headers=b"NATS/1.0\r\nce-id:o1:7\r\n\r\n"):
    return Event("events.acme.veh-7.battery.low", headers, data, 42, 1_764_064_800_000_000_000)


@pytest.mark.parametrize(("concurrency", "batch"), [(4, 32), (64, 512)])
def test_of_requests_few_are_delivered_together(concurrency, batch):
    more = f'to = "https://a.example/"\nconcurrency = {concurrency}'
    (rule,) = parse(RULE.replace('to = "nats:alerts.{tenant}.{device}.{type}"', more)).rules
    assert rule.batch == batch
    (rule,) = parse(RULE).rules
    assert rule.batch == 2_000


def test_a_rule_is_read():
    (rule,) = parse(RULE).rules
    assert rule.subjects == ("events.*.*.battery.low",)
    assert rule.start == "now"
    assert rule.pick == {
        "vehicle": EventMember("device"),
        "soc": DataPath(("soc",)),
        "source": Constant("tidegate"),
    }
    assert isinstance(rule.to, NatsDestination)
    assert str(rule.to) == "nats:alerts.{tenant}.{device}.{type}"


def test_a_pattern_may_be_a_string_of_json():
    text = RULE.replace(
        """{ type = ["battery.low"], data = { soc = [{ numeric = ["<", 20] }] } }""",
        """'{"type": [{"prefix": "door."}], "data": {"user": [null]}}'""",
    )
    (rule,) = parse(text + "from = 2026-11-23T10:00:00+01:00").rules
    assert rule.subjects == ("events.*.*.door.>",)
    assert rule.start == datetime(2026, 11, 23, 9, tzinfo=UTC)


def changed(old, new):
    assert old in RULE
    return RULE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("when", "whan"), 'rule "low".whan: unknown key; did you mean when?'),
        (changed('name = "low"', ""), "rule number 1.name: Field required"),
        (changed('"low"', '"a b"'), 'rule "a b".name: a name matches'),
        (changed("numeric", "numerics"), 'rule "low".when.data.soc[0]: unknown operator numerics'),
        (changed('["<", 20]', '["<", 20, ">", 30]'), 'rule "low".when.data.soc[0].numeric: no num'),
        (changed("data =", "detail ="), 'rule "low".when.detail: an event has'),
        (changed("nats:", "kafka:"), 'rule "low".to:'),
        (changed('"data.soc"', '"soc"'), 'rule "low".pick.soc:'),
        (changed('vehicle = "device", soc = "data.soc", source = { constant = "tidegate" }', ""),
         'rule "low".pick: '),
        (RULE + "attempts = 0", 'rule "low".attempts:'),
        (RULE + 'from = "later"', 'rule "low".from: write'),
        (RULE + RULE, "two rules have the name low"),
    ],
)  # fmt: skip
def test_an_offence_is_named_with_its_place(text, said):
    with pytest.raises(EventsFileError) as caught:
        parse(text)
    assert f"events.toml: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "expected", "wildcards"),
    [
        ("nats:alerts", NatsDestination("alerts"), "alerts"),
        ("nats:a.{device}-x.{type}", NatsDestination("a.{device}-x.{type}"), "a.*.>"),
        ("https://example.com/a?b=c", HttpDestination("https://example.com/a?b=c"), None),
        ("http://127.0.0.1:8080", HttpDestination("http://127.0.0.1:8080"), None),
        ("command:lock.doors", CommandDestination("lock.doors"), None),
    ],
)
def test_destinations(written, expected, wildcards):
    found = destination_of(written)
    assert found == expected
    assert destination_of(found) is found
    assert str(found) == written
    if isinstance(found, NatsDestination):
        assert found.filter == wildcards


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (7, "write nats:"),
        ("alerts", "'alerts' is none of nats:"),
        ("ftp://user:secret@host/x", "'ftp:' is none of nats:"),
        ("nats:", "a token that is empty"),
        ("nats:a..b", "a token that is empty"),
        ("nats:a.*", "empty or not literal"),
        ("nats:a.>", "empty or not literal"),
        ("nats:a b", "empty or not literal"),
        ("nats:a.{device", "empty or not literal"),
        ("nats:a.{devise}", "{devise} is none of"),
        ("nats:{tenant}.a", "the first token of the subject is literal"),
        ("nats:a.{type}.b", "at the end"),
        ("nats:a.x-{type}", "at the end"),
        ("nats:a.{type}.{type}", "at the end"),
        ("nats:events.{tenant}.{device}.x", "begin with events are not for rules"),
        ("nats:$JS.API.x", "are not for rules"),
        ("nats:" + "a" * 256, "longer than"),
        ("https://user:secret@host/", "a URL with credentials"),
        ("https://user@host/", "a URL with credentials"),
        ("https:///x", "names no host"),
        ("https://host:0/", "names no host"),
        ("https://host:99999/", "malformed"),
        ("https://host/#x", "behind #"),
        ("https://host/a b", "no spaces"),
        ("https://hôst/", "of ASCII"),
        ("https://host/" + "a" * 2048, "at most"),
        ("command:", "no type of a command"),
        ("command:a b", "no type of a command"),
    ],
)
def test_what_is_no_destination(written, said):
    with pytest.raises(ValueError, match=r".") as caught:
        destination_of(written)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_payload_keeps_the_digits_that_the_device_sent():
    picker = Picker({"v": EventMember("device"), "s": DataPath(("soc",)), "c": Constant("x")})
    assert picker.payload(event()) == b'{"v":"veh-7","s":7.50,"c":"x"}'


def test_every_member_can_be_picked():
    names = ("tenant", "device", "type", "outbox", "seq", "stream_seq", "stored_at", "data", "time")
    picked = json.loads(Picker({name: EventMember(name) for name in names}).payload(event()))
    assert picked == {
        "tenant": "acme",
        "device": "veh-7",
        "type": "battery.low",
        "outbox": "o1",
        "seq": 7,
        "stream_seq": 42,
        "stored_at": "2025-11-25T10:00:00Z",
        "data": {"soc": 7.5, "pos": {"lat": 1}},
    }


def test_what_is_absent_is_left_out():
    picker = Picker(
        {"a": DataPath(("no",)), "b": DataPath(("pos", "lat")), "c": EventMember("seq")}
    )
    assert picker.payload(event(headers=b"")) == b'{"b":1}'


@pytest.mark.parametrize("data", [b"7", b"[1]", b'"x"', b"", b'{"a":', b'{"a":\xff}'])
def test_a_path_needs_an_object(data):
    with pytest.raises(PickError):
        Picker({"a": DataPath(("a",))}).payload(event(data))


def lint(when, schemas=None):
    text = f"[[rule]]\nname = 'x'\nto = 'nats:a'\nwhen = '{json.dumps(when)}'"
    return list(never(parse(text).rules, schemas))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"type": ["battery low"]}, 'rule "x".when.type: "battery low" never holds: it is no type'),
        ({"type": [7]}, "type is a string"),
        ({"device": [{"numeric": [">", 1]}]}, "device is a string"),
        ({"time": [None]}, "time is a string"),
        ({"tenant": [{"exists": False}]}, "every event has a tenant"),
        ({"device": ["a.b"]}, "it is no device"),
        ({"device": [{"prefix": "é"}]}, "no device begins so"),
        ({"type": [{"prefix": "a..b"}]}, "no type begins so"),
        (
            {"type": ["a"], "$or": [{"type": ["b"]}, {"device": ["x"]}]},
            'rule "x".when.$or[0].type: the pattern around it allows ["a"] only',
        ),
    ],
)
def test_what_can_never_match(when, said):
    (line,) = lint(when)
    assert said in line


@pytest.mark.parametrize(
    "when",
    [
        {"type": ["a.b", {"prefix": "c."}], "device": [{"prefix": "x-"}], "tenant": ["t"]},
        {"type": [{"wildcard": "a*"}], "time": [{"exists": False}], "data": {"type": [7]}},
        {"type": ["a", {"prefix": "b"}], "$or": [{"type": ["b"]}, {"data": {"x": [1]}}]},
        {"type": ["a", "b"], "$or": [{"type": ["b"]}, {"type": [{"prefix": "z"}]}]},
    ],
)
def test_what_can_match(when):
    assert lint(when) == []


def test_a_type_without_a_schema_is_named_if_the_gateway_rejects_it():
    when = {"type": ["a", "b", {"prefix": "c."}, {"prefix": "d."}]}
    found = lint(when, schemas={"a", "d.e"})
    assert ['"b" has no schema' in found[0], '"c." has no schema' in found[1]] == [True, True]
    assert len(found) == 2

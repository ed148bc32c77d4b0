import json
from datetime import UTC, datetime

import pytest

from gateway.consumers.delivery.derived import derived_id
from gateway.events.dead_letters import Letter, Selection, letter_of
from gateway.events.errors import RedriveError
from gateway.events.event import Event
from gateway.events.hops import hops_of
from gateway.events.letters import letter_headers
from gateway.events.redrives import redriven_event
from gateway.events.redriving import merged, redriven

MESSAGE = b'{"seq":7,"type":"battery.low","data":{"soc":170.50},"time":"2026-11-25T10:00:00Z"}'
HEADERS = {
    "Nats-Msg-Id": "acme:veh-7:o1:7",
    "Tidegate-Outbox": "o1",
    "Tidegate-Seq": "7",
    "Tidegate-Error": "schema",
    "Tidegate-Detail": "data.soc: 170.50 is greater than 100%0A",
}


def letter(data=MESSAGE, subject="deadletters.acme.veh-7", **headers):
    return Letter(3, subject, HEADERS | headers, data, 1_764_064_800_000_000_000)


def test_a_letter_of_the_gateway():
    found = letter()
    assert (found.tenant, found.device, found.stage) == ("acme", "veh-7", "schema")
    assert (found.type, found.error, found.consumer) == ("battery.low", "schema", "")
    assert found.detail.endswith("100\n")
    assert letter(**{"Tidegate-Error": "seq_reused"}).stage == "ingest"


@pytest.mark.parametrize("data", [b"{", b"7", b'{"type":7}', b"\xff"])
def test_the_type_of_what_cannot_be_read_is_unknown(data):
    assert letter(data).type == ""


def test_a_letter_of_a_consumer():
    block = (
        b"NATS/1.0\r\nTidegate-Stage: rule\r\nTidegate-Consumer:low\r\nTidegate-Error:pick\r\n"
        b"ce-type:door.open\r\n\r\n"
    )
    found = letter_of("deadletters.acme.veh-7.rule.low", block, b"[1]", 9, 0)
    assert (found.stage, found.consumer, found.error) == ("rule", "low", "pick")
    assert (found.type, found.of_gateway) == ("door.open", False)
    assert letter_of("deadletters.acme.veh-7.rule.low", b"", b"", 9, 0).type == ""


@pytest.mark.parametrize(
    ("wanted", "subjects", "included"),
    [
        ({}, ["deadletters.>"], True),
        ({"tenant": "acme"}, ["deadletters.acme.>"], True),
        ({"device": "veh-7"}, ["deadletters.*.veh-7", "deadletters.*.veh-7.>"], True),
        ({"stage": "schema", "device": "veh-7"}, ["deadletters.*.veh-7"], True),
        ({"stage": "ingest"}, ["deadletters.*.*"], False),
        ({"stage": "rule", "consumer": "x"}, ["deadletters.*.*.rule.x"], False),
        ({"stage": "sink"}, ["deadletters.*.*.sink.*"], False),
        ({"error": "schema", "message_type": "battery.low", "tenant": "acme"}, None, True),
        ({"error": "other"}, None, False),
        ({"message_type": "door"}, None, False),
        ({"since": datetime(2025, 11, 25, 10, tzinfo=UTC)}, None, True),
        ({"since": datetime(2025, 11, 25, 11, tzinfo=UTC)}, None, False),
        ({"until": datetime(2025, 11, 25, 10, tzinfo=UTC)}, None, False),
    ],
)
def test_a_selection(wanted, subjects, included):
    selection = Selection(**wanted)
    assert selection.includes(letter()) is included
    if subjects is not None:
        assert selection.subjects == subjects


def fits(_type, _data):
    return None


def test_a_redriven_event_is_what_the_device_meant():
    event = redriven(letter(), None, fits)
    assert event.subject == "events.acme.veh-7.battery.low"
    assert event.payload == b'{"soc":170.50}'
    assert event.headers["Nats-Msg-Id"] == "acme:veh-7:redrive/schema:3"
    assert event.headers["ce-id"] == "o1:7"
    assert event.headers["ce-time"] == "2026-11-25T10:00:00Z"


def test_a_patch_changes_the_data():
    event = redriven(letter(), {"soc": 100, "more": None, "x": {"y": 1}}, fits)
    assert json.loads(event.payload) == {"soc": 100, "x": {"y": 1}}


def test_a_time_that_the_gateway_gave():
    data = b'{"seq":7,"type":"a","data":1}'
    with pytest.raises(RedriveError, match="its time is none"):
        redriven(letter(data), None, fits)
    event = redriven(letter(data, **{"ce-time": "2026-11-25T10:00:00Z"}), None, fits)
    assert event.headers["ce-time"] == "2026-11-25T10:00:00Z"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "no JSON object"),
        (b'{"type":"a b","data":1}', "its type is none"),
        (b'{"data":1}', "its type is none"),
        (b'{"type":"a"}', "it has no data"),
        (b'{"type":"a","data":1,"time":7}', "its time is none"),
        (b'{"type":"a","data":1,"time":"noon"}', "its time is none"),
    ],
)
def test_what_can_be_no_event(data, said):
    with pytest.raises(RedriveError, match=said):
        redriven(letter(data), None, fits)


def test_a_truncated_letter_cannot_be_sent_again():
    with pytest.raises(RedriveError, match="only the beginning"):
        redriven(letter(**{"Tidegate-Truncated": "70000"}), None, fits)


def test_a_patch_that_leaves_the_event_invalid_is_refused():
    def check(message_type, data):
        return f"{message_type}: {data.decode()} is too much"

    with pytest.raises(RedriveError) as caught:
        redriven(letter(), {"soc": 150}, check)
    assert str(caught.value) == 'schema: battery.low: {"soc":150} is too much'


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target, patch, expected):
    assert json.loads(merged(json.dumps(target).encode(), patch)) == expected


def test_a_patch_keeps_the_text_of_what_it_does_not_name():
    target = b'{"soc":170,"at":{"lat":52.100000000000000000001,"lon":1E3}}'
    patched = merged(target, {"soc": 90, "at": {"lon": None}})
    assert patched == b'{"soc":90,"at":{"lat":52.100000000000000000001}}'


CONSUMER_HEADERS = {
    "Nats-Msg-Id": "acme:veh-7:rule/low:40",
    "Tidegate-Stage": "rule",
    "Tidegate-Consumer": "low",
    "Tidegate-Error": "pick",
    "Tidegate-Stream-Seq": "40",
    "Tidegate-Stored-Ns": "1764064800000000000",
    "ce-type": "battery.low",
    "ce-id": "o1:7",
}


def consumer_letter(data=b'{"soc":5}', **headers):
    block = CONSUMER_HEADERS | headers
    return Letter(9, "deadletters.acme.veh-7.rule.low", block, data, 0)


def test_a_letter_of_a_rule_goes_to_that_rule_and_is_still_the_same_event():
    sent = redriven(consumer_letter(), {"soc": 6}, fits)
    assert sent.subject == "redrives.rule.low.acme.veh-7"
    assert sent.payload == b'{"soc":6}'
    assert sent.headers["Nats-Msg-Id"] == "acme:veh-7:redrive/rule:9"
    assert sent.headers["Tidegate-Redrives"] == "1"
    block = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.headers.items()) + "\r\n"
    event = redriven_event(sent.subject, block.encode(), sent.payload, 3, 0)
    assert event.subject == "events.acme.veh-7.battery.low"
    assert (event.stream_seq, event.stored_at_ns) == (40, 1_764_064_800_000_000_000)
    assert (event.position_seq, event.position_id) == (3, "acme:veh-7:redrive/rule:9")
    assert (event.message_id, event.seq) == ("acme:veh-7:o1:7", 7)
    assert derived_id(event, "low") == "acme:veh-7:rule/low:40"
    again = letter_headers(event, "rule", "low", "pick", "")
    assert again["Nats-Msg-Id"] == "acme:veh-7:rule/low.redrives:3"
    assert consumer_letter(**again).redrives == 1
    assert redriven(consumer_letter(**again), None, fits).headers["Tidegate-Redrives"] == "2"


def test_a_redriven_letter_keeps_how_many_rules_its_event_has_passed():
    block = b"NATS/1.0\r\nce-id:o1:7\r\nce-type:battery.low\r\nTidegate-Hops:6\r\n\r\n"
    event = Event("events.acme.veh-7.battery.low", block, b"{}", 40, 0)
    headers = dict(letter_headers(event, "rule", "low", "pick", ""))
    assert headers["Tidegate-Hops"] == "6"
    stored = Letter(3, "deadletters.acme.veh-7.rule.low", headers, b"{}", 0)
    again = redriven(stored, None, fits)
    lines = [f"{name}:{value}\r\n".encode() for name, value in again.headers.items()]
    found = redriven_event(again.subject, b"NATS/1.0\r\n" + b"".join(lines) + b"\r\n", b"{}", 1, 0)
    assert hops_of(found) == 6
    assert dict(letter_headers(found, "rule", "low", "hops", ""))["Tidegate-Hops"] == "6"


def test_what_a_rule_failed_on_is_checked_only_if_a_patch_changes_it():
    def never(_type, _data):
        return "no"

    assert redriven(consumer_letter(), None, never).payload == b'{"soc":5}'
    with pytest.raises(RedriveError, match="schema: no"):
        redriven(consumer_letter(), {"soc": 6}, never)


def test_a_letter_of_a_rule_that_is_gone_is_refused():
    with pytest.raises(RedriveError, match="the events file has no rule low to take it"):
        redriven(consumer_letter(), None, fits, frozenset({("sink", "low")}))
    redriven(consumer_letter(), None, fits, frozenset({("rule", "low")}))


@pytest.mark.parametrize(
    ("headers", "data", "said"),
    [
        ({"Tidegate-Stage": "x"}, b"{}", "no rule or sink"),
        ({"Tidegate-Consumer": "a.b"}, b"{}", "no rule or sink"),
        ({"Tidegate-Stream-Seq": "x"}, b"{}", "which event of the stream"),
        ({"ce-type": "a b"}, b"{}", "its type is none"),
        ({}, b"{", "its data is no JSON"),
    ],
)
def test_what_cannot_go_to_a_consumer(headers, data, said):
    with pytest.raises(RedriveError, match=said):
        redriven(consumer_letter(data, **headers), {"a": 1}, fits)

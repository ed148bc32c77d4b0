"""Messages that rules derive."""

import pytest

from gateway.consumers.delivery.derived import Deriver, encode_commit, encode_single, encode_staged
from gateway.events.event import Event
from gateway.events.rules import Rule

CE = b"ce-specversion:1.0\r\nce-id:o1:7\r\n"


def message(to="nats:alerts.{device}", headers=b"NATS/1.0\r\nNats-Msg-Id:x\r\n" + CE + b"\r\n"):
    when = {"type": ["battery.low"]}
    rule = Rule.model_validate({"name": "low", "when": when, "to": to})
    event = Event("events.acme.veh-7.battery.low", headers, b'{"soc":1}', 42, 0)
    return Deriver(rule, rule.to).message(event)


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("nats:alerts", b"alerts"),
        ("nats:alerts.{device}.{tenant}", b"alerts.veh-7.acme"),
        ("nats:alerts.100%", b"alerts.100%"),
        ("nats:alerts.100%.{type}", b"alerts.100%.battery.low"),
    ],
)
def test_the_subject_is_made_of_the_event(to, subject):
    assert message(to).subject == subject


@pytest.mark.parametrize(
    ("lines", "copied"),
    [
        (CE, CE),
        (CE + b"traceparent:00-1\r\n", CE + b"traceparent:00-1\r\n"),
        (CE + b"Nats-Batch-Id:b\r\nNats-Batch-Sequence:2\r\n", CE),
        (b"traceparent:00-1\r\n" + CE, b"traceparent:00-1\r\n" + CE),
        (CE + b"Nats-Batch-Id:b\r\nce-time:x\r\n", CE + b"ce-time:x\r\n"),
        (b"Ce-Type:t\r\n" + CE, b"Ce-Type:t\r\n" + CE),
        (CE + b"Other:1\r\nce-time:x\r\n", CE + b"ce-time:x\r\n"),
        (b"Other:1\r\n", b""),
        (b"", b""),
        (
            CE + b"Nats-Batch-Id:b\r\nNats-Batch-Sequence:2\r\nTRACEPARENT:x\r\n",
            CE + b"TRACEPARENT:x\r\n",
        ),
    ],
)
def test_the_lines_of_cloudevents_and_the_trace_are_copied(lines, copied):
    found = message(headers=b"NATS/1.0\r\nNats-Msg-Id:x\r\n" + lines + b"\r\n").headers
    start = b"NATS/1.0\r\nNats-Msg-Id:acme:veh-7:rule/low:42\r\n"
    assert found == start + copied + b"Tidegate-Hops:1\r\n"


@pytest.mark.parametrize("headers", [b"", b"NATS/1.0\r\n\r\n"])
def test_an_event_without_headers_has_a_message_too(headers):
    found = message(headers=headers).headers
    assert found == b"NATS/1.0\r\nNats-Msg-Id:acme:veh-7:rule/low:42\r\nTidegate-Hops:1\r\n"


def test_hops_are_counted():
    headers = b"NATS/1.0\r\n" + CE + b"Tidegate-Hops:3\r\n\r\n"
    assert message(headers=headers).headers.endswith(CE + b"Tidegate-Hops:4\r\n")


@pytest.mark.parametrize("place", [1, 10, 1_000])
def test_sizes_are_those_of_what_is_sent(place):
    one = message()
    commands = [
        encode_staged([one], b"b", place),
        encode_commit(one, b"b", place, b"_INBOX.1", b"S"),
        encode_single(one, b"_INBOX.1", b"S"),
    ]
    for command in commands:
        line, _, rest = command.partition(b"\r\n")
        headers_bytes, all_bytes = map(int, line.split(b" ")[-2:])
        assert rest[:headers_bytes].endswith(b"\r\n\r\n")
        assert rest[headers_bytes:all_bytes] == b'{"soc":1}'
        assert rest[all_bytes:] == b"\r\n"
        assert all_bytes <= one.size + len(b"Nats-Expected-Stream:S\r\n")


def test_staged_messages_count_on():
    found = encode_staged([message(), message()], b"b", 5)
    assert found.count(b"HPUB ") == 2
    assert b"Nats-Batch-Sequence:5\r\n" in found
    assert b"Nats-Batch-Sequence:6\r\n" in found

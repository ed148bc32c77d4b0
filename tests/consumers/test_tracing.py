from gateway.consumers.delivery import command_delivery
from gateway.consumers.delivery.derived import Deriver
from gateway.consumers.delivery.http_delivery import _headers
from gateway.consumers.tracing import Traced, onward, traced_in
from gateway.events.event import Event
from gateway.events.redrives import RedrivenEvent
from gateway.events.rules import Rule
from tidegate.wire.traceparent import read_traceparent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = b"NATS/1.0\r\nNats-Msg-Id:t:d:o:1\r\nce-id:o:1\r\ntraceparent:%b\r\n\r\n"
RULE = Rule.model_validate({"name": "low", "when": {"type": ["a"]}, "to": "nats:rules.low"})
PARENT = read_traceparent(TRACE)


def event(seq=7, trace=TRACE):
    return Event("events.t.d.a", HEADERS % trace.encode(), b"1", seq, 0)


def derived(event, *, traced=False):
    return Deriver(RULE, RULE.to, traced=traced).message(event)


def test_sampled_events_go_on_and_the_others_are_left_out():
    events = [event(7), event(8, TRACE[:-1] + "0"), event(9, "nonsense"), event(10)]
    found = traced_in(events, "sink/x")
    assert [each.stream_seq for each in found] == [7, 10]
    assert all(each.parent == PARENT for each in found)
    assert len({each.span_id for each in found}) == 2


def test_each_consumer_has_a_span_of_its_own_which_a_repeat_names_again():
    (one,), (again,), (other,) = (traced_in([event()], name) for name in ("r/a", "r/a", "r/b"))
    assert isinstance(one, Traced)
    assert one == again
    assert one.span_id != other.span_id


def test_what_a_rule_sends_names_the_span_of_the_rule():
    (rule,) = traced_in([event()], "rule/low")
    expected = f"00-{PARENT.trace_id.hex()}-{rule.span_id.hex()}-01"
    assert onward(event(), "rule/low") == expected
    message = derived(event(), traced=True)
    assert b"traceparent:%b\r\n" % expected.encode() in message.headers
    assert TRACE.encode() not in message.headers
    assert _headers(event(), "low", True)["traceparent"] == expected
    assert command_delivery._headers(event(), "low", True)["traceparent"] == expected


def test_without_an_export_the_trace_is_carried_on_as_it_came():
    assert b"traceparent:%b\r\n" % TRACE.encode() in derived(event()).headers
    assert _headers(event(), "low", False)["traceparent"] == TRACE
    assert command_delivery._headers(event(), "low", False)["traceparent"] == TRACE


def test_what_is_no_sampled_trace_is_carried_on_as_it_came():
    for trace in (TRACE[:-1] + "0", "nonsense"):
        message = derived(event(trace=trace), traced=True)
        assert b"traceparent:%b\r\n" % trace.encode() in message.headers
    bare = Event("events.t.d.a", b"NATS/1.0\r\nce-id:o:1\r\n\r\n", b"1", 7, 0)
    assert b"traceparent" not in derived(bare, traced=True).headers
    assert "traceparent" not in _headers(bare, "low", True)
    assert command_delivery._headers(bare, "low", True) == {"Tidegate-Hops": "1"}


def test_a_redrive_has_a_span_of_its_own():
    redriven = RedrivenEvent("events.t.d.a", HEADERS % TRACE.encode(), b"1", 7, 0, 3, "id")
    (first,), (again,) = traced_in([event()], "rule/low"), traced_in([redriven], "rule/low")
    assert first.span_id != again.span_id

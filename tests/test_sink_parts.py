"""The parts of a process that runs sinks."""

import random

import pytest

from gateway.consumers.errors import TargetRefused
from gateway.consumers.sink import State
from gateway.events.event import Event
from gateway.process import Ending
from gateway.sink_parts import Observing, Sinks, SinkStatus, Survivors
from gateway.telemetry.sampling import Ids
from gateway.telemetry.sinks import SinkMetrics
from gateway.telemetry.spans import ConsumedTraces
from tidegate.wire.traceparent import read_traceparent


class Runner:
    position = 7
    lag_messages = float("nan")
    lag_s = 1.23456
    retention_used = 0.5
    trouble = ""

    def __init__(self, name, *, refuses=None, state=State.RUNNING):
        self.name = name
        self.state = state
        self._refuses = refuses

    async def check(self):
        if self._refuses is not None:
            raise self._refuses


class Link:
    last_error = ""

    def __init__(self, client):
        self.client = client


def test_a_sink_that_fails_does_not_end_the_others_and_the_last_one_ends_the_process():
    ending = Ending()
    survivors = Survivors(ending)
    survivors.began(2)
    survivors.sink_failed(ValueError("one"))
    survivors.failed(ValueError("link"))
    assert not ending.asked
    survivors.sink_failed(ValueError("two"))
    assert ending.asked
    assert [str(failure) for failure in ending.failures] == ["one", "link", "two"]


def test_what_fails_before_a_sink_has_begun_ends_the_process():
    ending = Ending()
    Survivors(ending).failed(ValueError("link"))
    assert ending.asked


async def test_every_target_that_refuses_is_named():
    runners = [Runner(name, refuses=TargetRefused(f"{name}: no table")) for name in ("a", "b")]
    sinks = Sinks([*runners, Runner("c")], Survivors(Ending()), "sink")
    with pytest.raises(TargetRefused) as caught:
        await sinks.check()
    assert str(caught.value) == "a: no table\nb: no table"


async def test_a_fault_of_ours_is_not_taken_for_a_refusal():
    sinks = Sinks([Runner("a", refuses=KeyError("x"))], Survivors(Ending()), "sink")
    with pytest.raises(KeyError):
        await sinks.check()


def test_the_page_says_why_the_process_is_not_ready():
    def status(*, client="a client", state=State.RUNNING, failed=False):
        ending = Ending()
        if failed:
            ending.note(ValueError("broken"))
        return SinkStatus("sink", "owner", [Runner("a", state=state)], Link(client), ending)

    assert status().not_ready() is None
    assert status(client=None).not_ready() == "nats"
    assert status(failed=True).not_ready() == "sink_failed"
    assert status(state=State.OPENING).not_ready() == "sink_opening"
    page = status().page()
    assert page["sinks"]["a"]["lag_messages"] is None  # JSON has no NaN
    assert page["sinks"]["a"]["lag_s"] == 1.235


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(seq, trace):
    headers = b"NATS/1.0\r\nce-id:o:1\r\ntraceparent:%b\r\n\r\n" % trace.encode()
    return Event("events.t.d.a", headers, b"1", seq, 0)


def test_a_batch_that_failed_has_a_span_with_the_error_which_is_linked_to_its_events():
    spans = []
    observer = Observing(
        SinkMetrics("sink"), ConsumedTraces(Ids(random.Random(1)), spans.append), "sink"
    )
    observer.repeated("log", [event(7, TRACE), event(8, "none")], "the database is away", 0.5)
    (failed,) = spans
    assert (failed.name, failed.error) == ("tidegate sink/log batch", "the database is away")
    assert failed.links == (read_traceparent(TRACE),)
    assert failed.end_ns - failed.start_ns == 500_000_000
    assert dict(failed.attributes)["messaging.batch.message_count"] == 2
    observer.written("log", [event(7, TRACE)], 0, 0.1)
    _failed, batch, written = spans
    assert (batch.error, written.error, written.links[0].span_id) == ("", "", batch.span_id)


def test_a_batch_without_sampled_events_leaves_no_span_when_it_fails():
    spans = []
    observer = Observing(
        SinkMetrics("sink"), ConsumedTraces(Ids(random.Random(1)), spans.append), "sink"
    )
    observer.repeated("log", [event(8, "none")], "the database is away", 0.5)
    assert spans == []

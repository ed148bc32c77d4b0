"""The spans of a device, with the OpenTelemetry SDK."""

import pytest

from support.scripted import device_of, scripted
from support.waiting import eventually, within

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tidegate import OutboxFull, OutboxLimits, otel
from tidegate.otel import DeviceTraces
from tidegate.wire.traceparent import read_traceparent

FEATURES = ["outboxes", "trace"]


class Recorded:
    def __init__(self, sampler=None):
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._memory = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = provider.get_tracer("test")
        self.traces = DeviceTraces(self.tracer)

    @property
    def ended(self):
        return self._memory.get_finished_spans()


@pytest.fixture
def recorded():
    return Recorded()


def listening(frames, features=FEATURES, reject=None):
    """A gateway that settles what it hears, and keeps the frames."""

    async def script(peer):
        await peer.greet(features=features)
        while True:
            frame = await peer.hear()
            messages = frame if isinstance(frame, list) else [frame]
            frames.extend(messages)
            if reject is not None:
                for message in messages:
                    await peer.say({"reject": {"seq": message["seq"], "error": reject}})
            await peer.say({"ack": messages[-1]["seq"], "credit": 100})

    return script


async def test_a_message_names_its_span_which_ends_with_the_acknowledgement(tmp_path, recorded):
    frames = []
    async with (
        scripted(listening(frames)) as gateway,
        device_of(gateway, tmp_path, traces=recorded.traces) as device,
    ):
        with recorded.tracer.start_as_current_span("drive") as drive:
            number = await device.send("battery.low", {"soc": 7})
        await within(device.flush())
        outer, span = recorded.ended
    assert outer.name == "drive"
    assert span.name == "tidegate send"
    assert span.parent.span_id == drive.get_span_context().span_id
    assert span.attributes == {"tidegate.type": "battery.low", "tidegate.number": number}
    assert span.status.is_unset
    told = read_traceparent(frames[0]["trace"])
    assert int.from_bytes(told.trace_id, "big") == span.context.trace_id
    assert int.from_bytes(told.span_id, "big") == span.context.span_id


async def test_a_gateway_without_traces_is_sent_none(tmp_path, recorded):
    frames = []
    async with (
        scripted(listening(frames, ["outboxes"])) as gateway,
        device_of(gateway, tmp_path, traces=recorded.traces) as device,
    ):
        await device.send("a", 1)
        await within(device.flush())
    assert "trace" not in frames[0]
    assert len(recorded.ended) == 1


async def test_what_the_sampler_leaves_out_is_not_named(tmp_path):
    frames, recorded = [], Recorded(ALWAYS_OFF)
    async with (
        scripted(listening(frames)) as gateway,
        device_of(gateway, tmp_path, traces=recorded.traces) as device,
    ):
        await device.send("a", 1)
        await within(device.flush())
    assert "trace" not in frames[0]


async def test_a_rejected_message_ends_its_span_with_the_error(tmp_path, recorded):
    async with (
        scripted(listening([], reject="schema")) as gateway,
        device_of(gateway, tmp_path, traces=recorded.traces) as device,
    ):
        await device.send("a", 1)
        await within(device.flush())
        await eventually(lambda: recorded.ended)
    assert [span.status.description for span in recorded.ended] == ["rejected: schema"]


async def test_a_message_that_is_not_queued_or_not_settled_ends_its_span_with_an_error(
    tmp_path, recorded
):
    async def silent(peer):
        await peer.gone()

    limits = OutboxLimits(messages_max=1)
    async with (
        scripted(silent) as gateway,
        device_of(gateway, tmp_path, traces=recorded.traces, limits=limits) as device,
    ):
        await device.send("a", 1)
        with pytest.raises(OutboxFull):
            await device.send("a", 2)
        assert [span.status.description for span in recorded.ended] == ["OutboxFull"]
    last = recorded.ended[-1].status.description
    assert last == "not acknowledged when the device was closed"


def test_the_number_of_open_spans_is_bounded(recorded, monkeypatch):
    monkeypatch.setattr(otel, "OPEN_MAX", 2)
    for number in (1, 2, 3):
        recorded.traces.queued(recorded.traces.begin("a"), number)
    assert [span.attributes["tidegate.number"] for span in recorded.ended] == [3]
    assert recorded.traces.trace_of(3) is None
    recorded.traces.settled(1)
    assert recorded.traces.trace_of(1) is None
    assert recorded.traces.trace_of(2) is not None

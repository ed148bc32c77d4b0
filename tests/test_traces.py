"""Traces of a gateway, from a device's frame to a collector that speaks OTLP/HTTP."""

import sys

import pytest

from gateway.app import Gateway
from gateway.settings import load_settings
from gateway.telemetry.errors import ExtraMissing
from loadtest.servers.otlp import collecting
from loadtest.servers.process import free_port
from support.gateways import running_gateway
from support.stored import read_embedded
from support.waiting import eventually
from support.wire import message, raw_device
from tidegate.wire.traceparent import read_traceparent

DEVICE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector():
    with collecting() as made:
        yield made


async def test_a_sampled_message_has_a_span_that_is_linked_to_that_of_its_batch(
    tmp_path, collector
):
    settings = {"trace__endpoint": collector.endpoint, "trace__sample_ratio": 1.0}
    async with running_gateway(tmp_path, **settings) as gateway:
        async with raw_device(gateway, "veh-1") as device:
            assert "trace" in device.welcome["features"]
            await device.say([{**message(1), "trace": DEVICE}, message(2)])
            await device.hear_ack(2)
        events = await read_embedded(gateway.data_dir)
    # The gateway has ended, so its last spans are here.
    first, second = collector.named("tidegate message")
    (batch,) = collector.named("tidegate publish")
    parent = read_traceparent(DEVICE)
    assert (first.trace_id, first.parent_id) == (parent.trace_id.hex(), parent.span_id.hex())
    assert second.parent_id == ""
    assert second.trace_id != first.trace_id
    assert first.links == second.links == [(batch.trace_id, batch.span_id)]
    assert batch.attributes["messaging.batch.message_count"] == 2
    assert batch.attributes["tidegate.batch.sampled"] == 2
    assert first.attributes["tidegate.device"] == "veh-1"
    assert [span.attributes["tidegate.seq"] for span in (first, second)] == [1, 2]
    assert first.start_ns <= batch.start_ns <= batch.end_ns
    assert first.service == "tidegate-gateway"
    for event, span in zip(events, (first, second), strict=True):
        assert event.headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"


async def test_without_tracing_a_trace_is_no_feature_and_is_ignored(gateway):
    async with raw_device(gateway, "veh-1") as device:
        assert "trace" not in device.welcome["features"]
        await device.say({**message(1), "trace": DEVICE})
        await device.hear_ack(1)
    (event,) = await read_embedded(gateway.data_dir)
    assert "traceparent" not in event.headers


async def test_without_an_endpoint_the_event_has_its_traceparent_all_the_same(tmp_path):
    async with running_gateway(tmp_path, trace__sample_ratio=1.0) as gateway:
        async with raw_device(gateway, "veh-1") as device:
            await device.say({**message(1), "trace": DEVICE})
            await device.hear_ack(1)
        (event,) = await read_embedded(gateway.data_dir)
    assert event.headers["traceparent"][:35] == DEVICE[:35]
    assert event.headers["traceparent"] != DEVICE


async def test_a_collector_that_is_away_keeps_nothing_from_its_way(tmp_path):
    settings = {
        "trace__endpoint": f"http://127.0.0.1:{free_port()}",
        "trace__sample_ratio": 1.0,
    }
    async with running_gateway(tmp_path, **settings) as gateway:
        async with raw_device(gateway, "veh-1") as device:
            await device.say([message(seq) for seq in range(1, 31)])
            await device.hear_ack(30)
    value = gateway.metrics.value
    assert value("tidegate_trace_spans_dropped_total", {"reason": "failed"}) >= 31
    assert value("tidegate_trace_spans_exported_total") == 0


async def test_the_metrics_page_counts_what_was_exported(tmp_path, collector):
    settings = {"trace__endpoint": collector.endpoint, "trace__sample_ratio": 1.0}
    async with running_gateway(tmp_path, **settings) as gateway:
        async with raw_device(gateway, "veh-1") as device:
            await device.say(message(1))
            await device.hear_ack(1)
        exported = "tidegate_trace_spans_exported_total"
        await eventually(lambda: gateway.metrics.value(exported) == 2)


async def test_an_endpoint_without_the_extra_keeps_the_gateway_from_its_start(
    tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "gateway.telemetry.otlp", raising=False)
    missing = "opentelemetry.proto.trace.v1.trace_pb2"
    monkeypatch.setitem(sys.modules, missing, None)
    settings = load_settings(
        overrides={"nats.data_dir": tmp_path, "trace.endpoint": "http://127.0.0.1:4318"}
    )
    with pytest.raises(ExtraMissing, match=r"pip install 'tidegate-gateway\[otel\]'"):
        Gateway(settings)

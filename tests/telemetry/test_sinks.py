"""What a process of sinks or of rules counts and shows, under the names of the documents."""

import math
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.sinks import SinkMetrics

EVENTS = [object()] * 5


def samples(metrics):
    page = metrics.exposition()[0].decode()
    return {
        (sample.name, sample.labels.get("sink") or sample.labels.get("rule")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("tidegate_")
    }


@pytest.mark.parametrize(("kind", "unit"), [("sink", "rows"), ("rule", "events")])
def test_each_batch_counts(kind, unit):
    metrics = SinkMetrics(kind)
    metrics.written("a", EVENTS, 2, 0.5)
    metrics.written("a", EVENTS, 0, 0.25)
    metrics.repeated("a", EVENTS, "the database is away", 0.5)
    metrics.expired("b", 7)
    found = samples(metrics)
    assert found[f"tidegate_{kind}_{unit}_total", "a"] == 8
    assert found[f"tidegate_{kind}_dead_letters_total", "a"] == 2
    assert found[f"tidegate_{kind}_batches_repeated_total", "a"] == 1
    assert found[f"tidegate_{kind}_expired_sequences_total", "b"] == 7
    assert found[f"tidegate_{kind}_commit_seconds_sum", "a"] == 0.75
    assert found[f"tidegate_{kind}_commit_seconds_count", "a"] == 2
    assert found[f"tidegate_{kind}_batch_{unit}_sum", "a"] == 10


def test_the_gauges_are_what_the_sinks_say_when_they_are_read():
    metrics, up = SinkMetrics("sink"), [True]
    sink = SimpleNamespace(
        name="a", running=False, position=7, lag_messages=math.nan, lag_s=1.5, retention_used=0.25
    )
    metrics.watch([sink], lambda: up[0])
    found = samples(metrics)
    assert math.isnan(found.pop(("tidegate_sink_lag_messages", "a")))
    assert found == {
        ("tidegate_sink_running", "a"): 0,
        ("tidegate_sink_position", "a"): 7,
        ("tidegate_sink_lag_seconds", "a"): 1.5,
        ("tidegate_sink_retention_used_ratio", "a"): 0.25,
        ("tidegate_sink_nats_up", None): 1,
    }
    sink.running, up[0] = True, False
    found = samples(metrics)
    assert (found["tidegate_sink_running", "a"], found["tidegate_sink_nats_up", None]) == (1, 0)

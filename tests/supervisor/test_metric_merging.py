"""One exposition of those of all workers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from gateway.supervisor.metric_merging import add, counts_of, merged, parse


def exposition(count, seconds, devices, lag):
    registry = CollectorRegistry()
    Counter("tidegate_knocks", "Knocks.", ["answer"], registry=registry).labels("a").inc(count)
    histogram = Histogram("tidegate_ack_seconds", "Acks.", registry=registry, buckets=(0.1, 1.0))
    histogram.observe(seconds)
    Gauge("tidegate_devices", "Devices.", registry=registry).set(devices)
    Gauge("tidegate_loop_lag_seconds", "Lag.", registry=registry).set(lag)
    return parse(generate_latest(registry).decode())


def samples(families):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_counts_are_added_and_gauges_named_by_their_worker():
    found = samples(
        merged({"1": exposition(3, 0.05, 10, 0.1), "2": exposition(4, 0.5, 20, 0.2)}, {})
    )
    assert found["tidegate_knocks_total", ("answer", "a")] == 7
    assert found["tidegate_ack_seconds_count",] == 2
    assert found["tidegate_ack_seconds_bucket", ("le", "0.1")] == 1
    assert found["tidegate_ack_seconds_bucket", ("le", "+Inf")] == 2
    assert found["tidegate_devices",] == 30
    assert found["tidegate_loop_lag_seconds", ("worker", "1")] == 0.1
    assert found["tidegate_loop_lag_seconds", ("worker", "2")] == 0.2


def test_what_a_worker_had_counted_stays_after_its_end():
    ended = {}
    add(ended, counts_of(exposition(3, 0.05, 10, 0.1)))
    add(ended, counts_of(exposition(2, 0.05, 10, 0.1)))
    found = samples(merged({"2": exposition(4, 0.5, 20, 0.2)}, ended))
    assert found["tidegate_knocks_total", ("answer", "a")] == 9
    assert found["tidegate_ack_seconds_count",] == 3
    assert found["tidegate_devices",] == 20


def test_a_count_that_only_an_ended_worker_had_is_still_there():
    registry = CollectorRegistry()
    Counter("tidegate_knocks", "Knocks.", ["answer"], registry=registry).labels("b").inc()
    ended = counts_of(exposition(3, 0.05, 10, 0.1))
    found = samples(merged({"2": parse(generate_latest(registry).decode())}, ended))
    assert found["tidegate_knocks_total", ("answer", "a")] == 3
    assert found["tidegate_knocks_total", ("answer", "b")] == 1

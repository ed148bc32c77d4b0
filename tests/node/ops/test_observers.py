"""Every hook of a room is counted, and its metric says so."""

import inspect

import pytest

from gateway.admission.observer import AdmissionObserver
from gateway.edge.observer import EdgeObserver
from gateway.node.ops.observers import AdmissionMetrics, EdgeMetrics, Observers, StreamMetrics
from gateway.stream.lanes.batch import Kind
from gateway.stream.observer import StreamObserver
from gateway.telemetry.metrics import Metrics

PAIRS = [
    (EdgeObserver, EdgeMetrics),
    (AdmissionObserver, AdmissionMetrics),
    (StreamObserver, StreamMetrics),
]


NO_HOOKS = {"off_schema", "totals", "dead_letters"}
"""Of the schemas, which are no room, and what the live page reads."""


def hooks(observer, base=object):
    """What a class offers beyond `base`."""
    own = [each for each in observer.__mro__ if each not in base.__mro__]
    return {name for each in own for name in vars(each) if not name.startswith("_")}


@pytest.mark.parametrize(("observer", "counting"), PAIRS)
def test_no_hook_is_forgotten_and_none_is_misspelt(observer, counting):
    own = hooks(counting, observer) - NO_HOOKS
    assert own == hooks(observer)
    for name in own:
        expected = list(inspect.signature(getattr(observer, name)).parameters)
        assert list(inspect.signature(getattr(counting, name)).parameters) == expected


def test_what_a_room_reports_is_on_the_page():
    metrics = Metrics()
    observers = Observers.of(metrics)
    observers.edge.refused("admission", "rate")
    observers.edge.received(3, 120)
    observers.admission.ticket_honoured(0.25)
    observers.stream.batch_settled("atomic", 5, 2, 0.01)
    observers.stream.off_schema("battery.low")
    refused = {"error": "admission", "reason": "rate"}
    assert metrics.value("tidegate_refused_total", refused) == 1
    assert metrics.value("tidegate_messages_received_total") == 3
    assert metrics.value("tidegate_received_bytes_total") == 120
    assert metrics.value("tidegate_tickets_total", {"outcome": "honoured"}) == 1
    assert metrics.value("tidegate_messages_settled_total", {"kind": "atomic"}) == 5
    assert metrics.value("tidegate_messages_duplicate_total") == 2
    assert metrics.value("tidegate_schema_violations_total", {"type": "battery.low"}) == 1


@pytest.mark.parametrize(("observer", "_counting"), PAIRS)
def test_a_base_observer_does_nothing(observer, _counting):
    quiet = observer()
    for name in hooks(observer):
        parameters = list(inspect.signature(getattr(quiet, name)).parameters)
        assert getattr(quiet, name)(*parameters) is None


def test_every_kind_of_batch_is_counted():
    metrics = Metrics()
    stream = StreamMetrics(metrics)
    for kind in Kind:
        stream.batch_settled(kind.value, 3, 0, 0.01)
        assert metrics.value("tidegate_messages_settled_total", {"kind": kind.value}) == 3

"""The settings as the limits of each room."""

import pytest

from gateway.admission.controller import SIGNALS, RateController
from gateway.admission.desk import DeskSettings
from gateway.edge.connection.context import ConnectionLimits
from gateway.node import limits
from gateway.session.limits import SessionLimits
from gateway.settings import Settings, load_settings
from gateway.stream.lanes.publisher import PublishLimits

DEFAULTS = Settings()


def settings(**overrides):
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(None, environment={}, overrides=named)


@pytest.mark.parametrize(
    ("made", "room"),
    [
        (limits.publish_limits, PublishLimits),
        (limits.session_limits, SessionLimits),
        (limits.connection_limits, ConnectionLimits),
        (limits.desk_settings, DeskSettings),
    ],
)
def test_the_defaults_of_a_room_are_those_of_the_settings(made, room):
    assert made(DEFAULTS) == room()


def test_deliveries_of_commands_yield_before_admission_does_and_never_end():
    made = settings(commands__deliveries_per_s=200)
    deliveries = RateController(limits.delivery_settings(made))
    admission = RateController(limits.controller_settings(made))
    slow = {"puback_p99": made.admission.puback_p99_ms.low / 1000 + 0.001}
    before = admission.rate_per_s
    for second in range(100):
        deliveries.observe(slow, second)
        admission.observe(slow, second)
    assert (deliveries.rate_per_s, admission.rate_per_s) == (10.0, before)
    for second in range(100, 130):
        deliveries.observe({}, second)
    assert deliveries.rate_per_s == 200


def test_milliseconds_become_seconds():
    made = settings(publish__ack_timeout_ms=1_500, keepalive__interval_ms=45_000)
    assert limits.publish_limits(made).ack_timeout_s == 1.5
    assert limits.connection_limits(made).keepalive_interval_s == 45.0
    assert limits.controller_settings(DEFAULTS).marks["puback_p99"].high == 2.0


def test_each_signal_of_the_controller_has_its_marks():
    assert tuple(limits.controller_settings(DEFAULTS).marks) == SIGNALS


def test_the_share_of_the_backlog_stays_a_share():
    marks = limits.controller_settings(DEFAULTS).marks["publish_backlog"]
    assert (marks.low, marks.high) == (0.25, 0.6)


def test_a_node_can_refuse_at_least_twice_what_it_admits():
    assert (
        limits.refusals_per_s(settings(session__refusals_per_s=10, admission__rate_per_s=300.0))
        == 600
    )
    assert limits.refusals_per_s(settings(session__refusals_per_s=9_000)) == 9_000


def test_a_ticket_may_be_ahead_by_two_horizons_and_a_minute():
    assert limits.ticket_ahead_s_max(settings(admission__horizon_ms=10_000)) == 80.0


def test_compression_is_off_unless_it_is_set():
    assert limits.extensions(DEFAULTS.compression) is None
    (factory,) = limits.extensions(settings(compression__enabled=True).compression)
    assert factory.server_max_window_bits == factory.client_max_window_bits == 11
    assert factory.require_client_max_window_bits

"""What operators and SIGHUP change while a node runs reaches its parts, and goes back."""

import random

import pytest
from structlog.testing import capture_logs

from gateway.admission.controller import RateController
from gateway.admission.desk import AdmissionDesk
from gateway.admission.observer import AdmissionObserver
from gateway.cluster.overrides import Overrides
from gateway.node import limits
from gateway.node.cluster.membership import LoneNode
from gateway.node.ops.live_settings import LiveSettings
from gateway.node.ops.steering import Steering
from gateway.settings import SettingsError, load_settings


def settings(**overrides):
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(None, environment={}, overrides=dotted)


class Node:
    """The parts of a node that can be steered, with a clock of the test."""

    def __init__(self, monkeypatch, **overrides):
        self.now = 1_000.0
        self.levels = []
        monkeypatch.setattr("gateway.node.ops.steering.set_level", self.levels.append)
        self.settings = settings(**overrides)
        self.membership = LoneNode(
            limits.calendar_settings(self.settings),
            rate_per_s=self.settings.admission.rate_per_s,
            now=self.clock(),
        )
        self.controller = RateController(limits.controller_settings(self.settings))
        self.desk = AdmissionDesk(
            limits.desk_settings(self.settings),
            calendar=self.membership.calendar,
            office=None,
            observer=AdmissionObserver(),
            rng=random.Random(1),
            now=self.clock(),
        )
        self.steering = Steering(
            self.settings,
            Overrides(self.clock),
            controller=self.controller,
            desk=self.desk,
            membership=self.membership,
            clock=self.clock,
            fleet_time=self.clock,
        )

    def clock(self):
        return self.now

    @property
    def rate_per_s(self):
        return self.membership.calendar.rate_per_s

    def at_once(self):
        """How many slots of the calendar are free now."""
        calendar, count = self.membership.calendar, 0
        while calendar.reserve(self.now, 1.0, priority=False) <= self.now:
            count += 1
        return count


@pytest.fixture
def node(monkeypatch):
    return Node(monkeypatch)


async def test_r_changes_at_once_and_goes_back_by_itself(node):
    assert await node.steering.steer({"rate_per_s": 200.0}, 600, "alice") == "node"
    assert node.rate_per_s == 200
    shown = {"rate_per_s": {"value": 200.0, "until": 1_600.0, "by": "alice"}}
    assert node.steering.status() == shown
    node.now += 599
    node.steering.apply()
    assert node.rate_per_s == 200
    node.now += 1
    node.steering.apply()
    assert node.rate_per_s == 500
    assert node.steering.status() == {}


async def test_r_may_be_raised_above_the_settings(node):
    await node.steering.steer({"rate_per_s": 2_000.0}, 60, "alice")
    assert node.rate_per_s == 2_000


async def test_r_that_a_signal_holds_down_only_gets_another_ceiling(node):
    while node.controller.observe({"loop_lag": 1.0}, node.now) > 200:
        node.now += 10
    slowed = node.controller.rate_per_s
    await node.steering.steer({"rate_per_s": 2_000.0}, 60, "alice")
    assert node.rate_per_s == slowed
    await node.steering.steer({"rate_per_s": 100.0}, 60, "alice")
    assert node.rate_per_s == 100


async def test_the_floor_keeps_r_up_and_is_r_at_most(node):
    await node.steering.steer({"rate_floor_per_s": 400.0}, 60, "alice")
    for _ in range(20):
        node.now += 2.9
        node.controller.observe({"loop_lag": 1.0}, node.now)
    assert node.controller.rate_per_s == 400
    await node.steering.steer({"rate_per_s": 20.0}, 60, "alice")
    assert node.controller.rate_per_s == 20
    assert node.controller.observe({"loop_lag": 1.0}, node.now + 60) == 20


async def test_the_burst_changes_in_the_calendar_and_the_meter(node):
    await node.steering.steer({"burst": 7.0}, 60, "alice")
    assert node.at_once() in (7, 8)


async def test_the_log_level_changes_and_goes_back(node):
    await node.steering.steer({"log_level": "debug"}, 60, "alice")
    node.now += 60
    node.steering.apply()
    assert node.levels == ["debug", "info"]


async def test_all_changes_can_be_ended(node):
    await node.steering.steer({"rate_per_s": 200.0, "burst": 7.0}, 600, "alice")
    assert await node.steering.unsteer("bob") == "node"
    assert (node.rate_per_s, node.steering.status()) == (500, {})
    await node.steering.steer({"rate_per_s": 300.0}, 600, "alice")
    assert node.rate_per_s == 300, "and made anew"


async def test_a_change_is_logged_once(node):
    with capture_logs() as logs:
        await node.steering.steer({"rate_per_s": 200.0}, 600, "alice")
        node.steering.apply()
    assert [(line["event"], line["rate_per_s"]) for line in logs] == [("steered", 200.0)]


async def test_sighup_changes_what_can_change_live_and_names_the_rest(node):
    new = settings(admission__rate_per_s=100.0, server__backlog=7, nats__connect_timeout_ms=9)
    live = LiveSettings(node.settings, lambda: new, node.steering)
    for changed in (["admission.rate_per_s"], []):
        with capture_logs() as logs:
            live.reload()
        said = {"changed": changed, "need_restart": ["server.backlog", "nats.connect_timeout_ms"]}
        assert said.items() <= logs[-1].items(), "what needs a restart is named until there is one"
    assert node.rate_per_s == 100


async def test_an_override_outlasts_a_sighup_and_gives_way_to_the_new_settings(node):
    await node.steering.steer({"rate_per_s": 200.0}, 60, "alice")
    LiveSettings(
        node.settings, lambda: settings(admission__rate_per_s=100.0), node.steering
    ).reload()
    assert node.rate_per_s == 200
    node.now += 60
    node.steering.apply()
    assert node.rate_per_s == 100


def test_settings_that_cannot_be_used_change_nothing(node):
    def read():
        raise SettingsError("admission.rate_per_s: not a number")

    with capture_logs() as logs:
        LiveSettings(node.settings, read, node.steering).reload()
    assert [line["event"] for line in logs] == ["settings_reload_failed"]
    assert node.rate_per_s == 500


def test_a_gateway_without_a_source_of_settings_reads_nothing(node):
    with capture_logs() as logs:
        LiveSettings(node.settings, None, node.steering).reload()
    assert logs == []

"""What scenarios do to a fleet and its servers. On gevent."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import gevent

from loadtest.devices.vehicle import Vehicle
from loadtest.lab.ground import Ground, Visited, url_of
from loadtest.lab.scenario import Scenario

_CUT_AT_ONCE: Final = 100
_STOPPED_S: Final = 0.3
_RUNNING_S: Final = 0.15
"""A slow JetStream stands still for `_STOPPED_S`, then goes on for `_RUNNING_S`."""


def break_it(scenario: Scenario, vehicles: Sequence[Vehicle], ground: Ground | Visited) -> int:
    """Do what the scenario says, for as long as it says.

    Returns:
        How many devices lose their connection because of it.
    """
    if scenario.fault == "cut":
        return _cut(vehicles)
    if scenario.fault == "expiry":
        return len(vehicles)
    assert isinstance(ground, Ground), "the options are checked before anything starts"
    breaks: Mapping[str, Callable[[], int]] = {
        "crash": lambda: _crash(vehicles, ground),
        "node-loss": lambda: _lose_node(vehicles, ground),
        "stream-outage": lambda: _stop_stream(scenario, ground),
        "rolling-restart": lambda: _restart_all(ground),
        "slow-stream": lambda: _slow_stream(scenario, vehicles, ground),
    }
    return breaks[scenario.fault]()


def _cut(vehicles: Sequence[Vehicle]) -> int:
    for number, vehicle in enumerate(vehicles):
        vehicle.cut()
        if number % _CUT_AT_ONCE == 0:
            gevent.sleep(0)  # the first may knock again before the last is cut
    return len(vehicles)


def _crash(vehicles: Sequence[Vehicle], ground: Ground) -> int:
    for gateway in ground.gateways:
        gateway.kill()
    for gateway in ground.gateways:
        gateway.launch()
    for gateway in ground.gateways:
        gateway.wait_until_up()
    return len(vehicles)


def _lose_node(vehicles: Sequence[Vehicle], ground: Ground) -> int:
    lost = ground.gateways[-1]
    concerned = sum(vehicle.url == url_of(lost) for vehicle in vehicles)
    lost.kill()
    return concerned


def _stop_stream(scenario: Scenario, ground: Ground) -> int:
    assert ground.nats is not None
    ground.nats.stop()
    gevent.sleep(scenario.fault_s)
    ground.nats.start()
    return 0


def _restart_all(ground: Ground) -> int:
    for gateway in ground.gateways:
        gateway.stop()
        gateway.start()
        ground.settle()
    return 0


def _slow_stream(scenario: Scenario, vehicles: Sequence[Vehicle], ground: Ground) -> int:
    assert ground.nats is not None
    (pid,) = ground.nats.pids
    concerned = _cut(vehicles)
    until = time.monotonic() + scenario.fault_s
    try:
        while time.monotonic() < until:
            os.kill(pid, signal.SIGSTOP)
            gevent.sleep(_STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            gevent.sleep(_RUNNING_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    return concerned

"""The node's flow: what R, the hold and the lag of the loop do to admission."""

import asyncio

import pytest

from gateway.node import flow
from gateway.node.flow import HoldLoop, LoopLag, RateLoop, probe_s
from gateway.node.hook import Hook
from support.waiting import eventually


class Controller:
    limited_by = "loop_lag"

    def __init__(self, *decisions):
        self._decisions = list(decisions)
        self.rate_per_s = 100.0
        self.seen = []
        self.followed = []

    def follow(self, signals, now):
        self.followed.append((signals, now))

    def observe(self, signals, now):
        self.seen.append((signals, now))
        self.rate_per_s = self._decisions.pop(0)
        return self.rate_per_s


class Calendar:
    rate_per_s = 40.0


class Membership:
    calendar = Calendar()

    def __init__(self):
        self.proposed = []

    def propose(self, rate_per_s):
        self.proposed.append(rate_per_s)


class Desk:
    held = False

    def __init__(self):
        self.rates = []

    def set_rate(self, rate_per_s, now):
        self.rates.append((rate_per_s, now))

    def release(self):
        self.held = False


class Gate:
    """Holds its desk, as the gate of a node does."""

    def __init__(self, desk):
        self._desk = desk
        self.pumped = 0
        self.held = 0

    def pump(self):
        self.pumped += 1

    def hold(self, *_reason):
        self.held += 1
        self._desk.held = True


class Hold:
    def __init__(self):
        self.seen = []

    def engage(self, reason):
        self.seen.append(reason)

    def disengage(self):
        self.seen.append("")


class Storage:
    trouble = None


def rate_loop(*decisions):
    controller, membership, desk = Controller(*decisions), Membership(), Desk()
    gate, lag = Gate(desk), LoopLag()
    loop = RateLoop(
        controller,
        signals=lambda: {"publish_backlog": 0.5},
        lag=lag,
        membership=membership,
        desk=desk,
        gate=gate,
        follower=controller.follow,
        clock=lambda: 7.0,
    )
    return loop, controller, membership, desk, gate


def test_r_is_proposed_and_the_meter_follows_the_calendar():
    loop, controller, membership, desk, _gate = rate_loop(70.0, 75.0)
    loop.observe()
    loop.observe()
    assert controller.seen[0] == ({"publish_backlog": 0.5, "loop_lag": 0.0}, 7.0)
    assert controller.followed == controller.seen
    assert membership.proposed == [70.0, 75.0]
    assert desk.rates == [(40.0, 7.0)] * 2  # the fleet's R, not this node's proposal


def test_new_slots_let_in_devices_that_wait():
    loop, _controller, _membership, desk, gate = rate_loop()
    loop.calendar_changed()
    assert (desk.rates, gate.pumped) == ([(40.0, 7.0)], 1)


async def test_the_worst_lag_is_taken_once():
    lag = LoopLag()
    ((_name, work),) = lag.work()
    probing = asyncio.create_task(work)
    worst = 0.0

    def lagged():
        nonlocal worst
        worst = max(worst, lag.take())
        return worst > 0

    await eventually(lagged)
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    lag.take()
    assert lag.take() == 0.0
    assert lag.last_s == 0.0


@pytest.mark.parametrize(
    ("late_s", "busy_share", "next_s"),
    [(0.0, 0.0, 0.25), (0.009, 0.04, 0.25), (0.01, 0.0, 0.05), (0.0, 0.05, 0.05)],
)
def test_a_loop_is_probed_more_often_if_it_was_late_or_its_process_is_busy(
    late_s, busy_share, next_s
):
    assert probe_s(late_s, busy_share) == next_s


async def test_a_loop_that_stops_being_calm_is_probed_more_often(monkeypatch):
    used_s = 0.0
    slept = []

    async def beat(every_s):
        nonlocal used_s
        slept.append(every_s)
        used_s += 1.0 if len(slept) == 2 else 0.0
        await asyncio.sleep(0)
        return asyncio.get_running_loop().time() + 1.0  # never late

    monkeypatch.setattr(flow, "beat", beat)
    ((_name, work),) = LoopLag(lambda: used_s).work()
    probing = asyncio.create_task(work)
    await eventually(lambda: len(slept) >= 4)
    probing.cancel()
    assert slept[:4] == [0.05, 0.25, 0.05, 0.25]


@pytest.mark.parametrize(
    ("held", "pending", "next_s"), [(False, 0, 0.25), (False, 1, 0.1), (True, 0, 0.1)]
)
async def test_the_stream_is_looked_at_less_often_while_no_message_can_fail(
    held, pending, next_s, monkeypatch
):
    loop, storage, _hold, desk, _gate = hold_loop(pending)
    slept = []

    async def beat(every_s):
        slept.append(every_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(flow, "beat", beat)
    desk.held, storage.trouble = held, "stream_slow" if held else None
    ((_name, work),) = loop.work()
    watching = asyncio.create_task(work)
    await eventually(lambda: len(slept) >= 2)
    watching.cancel()
    assert set(slept) == {next_s}


def hold_loop(pending=0):
    desk, hold, storage = Desk(), Hold(), Storage()
    gate = Gate(desk)
    loop = HoldLoop(storage, hold=hold, desk=desk, gate=gate, pending=lambda: pending)
    return loop, storage, hold, desk, gate


def test_nobody_is_admitted_before_the_streams_are_there_and_no_device_is_told_of_a_hold():
    loop, storage, hold, desk, gate = hold_loop()
    loop.begin()
    assert gate.held == 0
    storage.trouble = "starting"
    loop.begin()
    assert (gate.held, desk.held, hold.seen) == (1, True, [])


def test_a_hold_begins_once_and_ends_with_its_trouble():
    loop, storage, hold, desk, gate = hold_loop()
    storage.trouble = "nats_disconnected"
    loop.look()
    loop.look()
    assert (gate.held, desk.held, hold.seen) == (1, True, ["stream", "stream"])
    storage.trouble = None
    loop.look()
    assert (desk.held, hold.seen[-1]) == (False, "")


def test_a_hook_calls_every_receiver_and_none_is_fine():
    seen, hook = [], Hook()
    hook()
    hook.add(lambda: seen.append(1))
    hook.add(lambda: seen.append(2))
    hook()
    assert seen == [1, 2]

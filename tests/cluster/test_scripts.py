"""The Lua scripts on a real Redis: one time, one memory, one calendar, also if clocks are set.

Setting the clock of Redis is simulated by changing what Redis has stored about its own clock. For
the nodes that is the same.
"""

import secrets
import time
from importlib.resources import files

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.servers import redis_server

RATE, BURST, HORIZON_S = 100.0, 20, 900
STEP_S = 1.01 / RATE
TIMEOUT_S = 5
MARKED = ("devices", "revoked", "ticket-secrets")


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture
def client(server):
    client = redis.Redis(port=server.port, decode_responses=True)
    client.flushall()
    yield client
    client.close()


class Node:
    """A node, as far as the scripts know it."""

    def __init__(self, client, name, *, synced=True, ahead_s=0.0):
        self.client = client
        self.name = name
        self.synced = synced
        self.ahead_s = ahead_s
        self.epoch = ""
        source = files("gateway.cluster")
        self.scripts = {
            name: client.register_script(source.joinpath(f"{name}.lua").read_text())
            for name in ("heartbeat", "lease", "register", "unregister")
        }

    def now(self):
        return time.time() + self.ahead_s

    def beat(self, rate=RATE):
        keys = ["nodes", "rates", "fleet", "views", "accepts", *MARKED]
        mine = f"{self.now():.6f}" if self.synced else ""
        reply = self.scripts["heartbeat"](
            keys=keys, args=[self.name, TIMEOUT_S, rate, mine, 1.0, secrets.token_hex(4), "id"]
        )
        self.epoch, self.new = reply[3], reply[5] == "1"
        return float(reply[0]) - time.time(), int(reply[1])

    def lease(self, slots=0, *, priority=0, hint=0.0, promised=0.0, until=0.0, vacated=0):
        reply = self.scripts["lease"](
            keys=["calendar", "fleet", "promises"],
            args=[
                RATE, BURST, 0.01, 0.2, 0.5, HORIZON_S, slots, priority, vacated, "0.000",
                f"{hint:.6f}", self.name, self.epoch, f"{self.now():.6f}", 1.0,
                f"{promised:.6f}", f"{until:.6f}",
            ],
        )  # fmt: skip
        if reply[0] != "leased":
            return reply[0]
        return float(reply[7]) - float(reply[1])

    def register(self, device, fence, *, source=None):
        """What is stale, and what was raised."""
        args = [
            "node:", self.name, source or self.name, int(self.now() * 1e6), 5_000_000, 1_000_000,
            device, fence,
        ]  # fmt: skip
        return self.scripts["register"](keys=["devices", "nodes", "fleet"], args=args)

    def begin(self, device="t/veh", *, age_s=0.0):
        """The fence of a session that begins now, or has begun, by the clock of this node."""
        return int((self.now() - age_s) * 1e6)


def set_clock(client, by_s):
    """The clock of Redis is set."""
    client.hincrbyfloat("fleet", "shift", by_s)
    for name in client.hkeys("views"):
        client.hincrbyfloat("views", name, by_s)


def close_to(seconds):
    return pytest.approx(seconds, abs=0.5)


# Time


@pytest.mark.parametrize("by_s", [-3_600, -30, 30, 3_600])
def test_when_the_clock_of_redis_is_set_the_time_of_the_fleet_goes_on(client, by_s):
    nodes = [Node(client, name) for name in "abc"]
    for node in nodes:
        node.beat()
    set_clock(client, by_s)
    assert nodes[0].beat() == (close_to(by_s), 3), "one node may be wrong; nobody is declared dead"
    assert nodes[0].lease() == "clock"
    assert nodes[1].beat() == (close_to(0), 3)
    assert [node.beat() for node in nodes] == [(close_to(0), 3)] * 3
    assert nodes[0].lease() == close_to(0)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("ahead_s", [3_600, -3_600, 30])
def test_a_node_whose_clock_stood_still_moves_nobody(client, count, ahead_s):
    nodes = [Node(client, str(n)) for n in range(count)]
    for node in nodes:
        node.beat()
    nodes[0].ahead_s = ahead_s
    for _ in range(3):
        assert [node.beat() for node in nodes] == [(close_to(0), count)] * count
        assert nodes[0].lease(10) == "clock"
        assert nodes[1].lease(0) == close_to(0)


def test_a_node_that_was_never_told_the_time_takes_it(client):
    wrong = Node(client, "wrong", synced=False, ahead_s=3_600)
    assert wrong.beat() == (close_to(0), 1)
    right = Node(client, "right")
    assert right.beat() == (close_to(0), 2)


def test_nodes_that_know_the_time_tell_an_empty_redis_on_another_host(client):
    nodes = [Node(client, name, ahead_s=-300) for name in "ab"]
    newcomer = Node(client, "new", synced=False)
    assert nodes[0].beat() == (close_to(-300), 1)
    assert newcomer.beat() == (close_to(-300), 2)
    assert nodes[1].beat() == (close_to(-300), 3)


def test_a_silent_node_is_gone_and_one_from_the_future_too(client):
    node = Node(client, "a")
    node.beat()
    client.zadd("nodes", {"silent": time.time() - 1, "future": time.time() + 3_600})
    for name in ("silent", "future"):
        client.hset("rates", name, "1")
        client.hset("views", name, "0")
        client.hset("accepts", name, "x")
    assert node.beat()[1] == 1
    assert client.zrange("nodes", 0, -1) == ["a"]
    assert [client.hlen(key) for key in ("rates", "views", "accepts")] == [1, 1, 1]


def test_r_of_the_fleet_is_the_mean_of_what_nodes_propose(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat(rate=100.0)
    two.beat(rate=50.0)
    keys = ["nodes", "rates", "fleet", "views", "accepts", *MARKED]
    reply = one.scripts["heartbeat"](
        keys=keys, args=["a", TIMEOUT_S, 100.0, f"{time.time():.6f}", 1.0, "p", "id"]
    )
    assert float(reply[2]) == 75.0


def test_a_node_that_was_taken_for_dead_is_told(client):
    one, two = Node(client, "a"), Node(client, "b")
    assert [one.beat(), one.new] == [(close_to(0), 1), True]
    two.beat()
    assert [one.beat(), one.new] == [(close_to(0), 2), False]
    client.zrem("nodes", "a")
    assert [one.beat(), one.new] == [(close_to(0), 2), True]


# Memory


@pytest.mark.parametrize("lost", [*MARKED, "fleet", None])
def test_what_redis_forgot_is_noticed_by_every_node(client, lost):
    nodes = [Node(client, name) for name in "ab"]
    for node in nodes:
        node.beat()
    before = {node.epoch for node in nodes}
    assert len(before) == 1
    for node in nodes:
        node.beat()
    assert {node.epoch for node in nodes} == before, "nothing is lost"
    client.delete(lost) if lost else client.flushall()
    if lost in ("fleet", None):
        assert nodes[1].lease() == "forgotten"
    for node in nodes:
        node.beat()
    after = {node.epoch for node in nodes}
    assert len(after) == 1
    assert after != before


# The calendar


def test_leases_of_all_nodes_follow_each_other(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    one.lease(50)
    assert two.lease(50, promised=0) == close_to((100 - BURST) * STEP_S)


def test_a_calendar_that_nobody_explains_is_set_back(client):
    node = Node(client, "a")
    node.beat()
    client.hset("calendar", mapping={"next": time.time() + 840, "priority": 0, "meter": 0})
    assert node.lease(1) <= 2.1
    assert node.lease(1, hint=time.time() + 3_600) <= 2.1, "whoever says so"


def test_a_calendar_that_promises_explain_stays(client):
    nodes = [Node(client, name) for name in "abc"]
    for node in nodes:
        node.beat()
    leads = [node.lease(10_000) for node in nodes]
    assert leads[-1] == close_to(30_000 * STEP_S - BURST / RATE)
    for node in nodes:  # each has promised what it got
        lead = node.lease(0, promised=10_000 * STEP_S, until=time.time() + leads[-1])
        assert lead == close_to(leads[-1])


def test_what_a_dead_node_promised_counts_until_it_is_due(client):
    dead, node = Node(client, "dead"), Node(client, "a")
    dead.beat()
    node.beat()
    lead = dead.lease(10_000)
    client.zrem("nodes", "dead")
    assert node.lease(0) == close_to(lead)
    # Half of the time has passed, and with it half of the promises.
    now = time.time()
    client.hset("promises", "dead", f"100 {now + 50:.6f} {now - 50:.6f}")
    client.hset("calendar", "next", now + 100)
    assert node.lease(0) == close_to(50 * 1.1 + 2)
    client.hset("promises", "dead", f"100 {now - 1:.6f} {now - 50:.6f}")
    client.hset("calendar", "next", now + 100)
    assert node.lease(0) <= 2.1
    assert not client.hexists("promises", "dead")


def test_past_the_horizon_there_are_no_slots(client):
    node = Node(client, "a")
    node.beat()
    first = node.lease(int(HORIZON_S / STEP_S) + 100)
    assert first > HORIZON_S - 1
    lead = node.lease(50, promised=first, until=time.time() + first)
    assert lead == close_to(first)


def test_a_priority_slot_pushes_the_calendar_too(client):
    node = Node(client, "a")
    node.beat()
    lead = node.lease(1_000)
    later = node.lease(0, priority=100, promised=lead, until=time.time() + lead)
    assert later == close_to(lead + 100 * STEP_S)


def test_a_meter_from_the_future_does_not_withhold_vacated_slots(client):
    node = Node(client, "a")
    node.beat()
    lead = node.lease(1_000)
    client.hset("calendar", "meter", time.time() + 3_600)
    node.lease(0, vacated=10, promised=lead, until=time.time() + lead)
    assert float(client.hget("calendar", "meter")) <= time.time() + BURST / RATE + 0.1


# Devices


def test_the_newest_connection_holds_the_device(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    now = int(time.time() * 1e6)
    assert one.register("t/veh", now) == [[], []]
    assert two.register("t/veh", now - 100_000) == [["t/veh", str(now)], []]
    assert two.register("t/veh", now + 100_000) == [[], []]
    assert client.hget("devices", "t/veh") == f"{now + 100_000} b"
    two.scripts["unregister"](keys=["devices"], args=["b", "t/veh", now + 100_000])
    assert client.hkeys("devices") == ["#"]


ERRORS_S = st.floats(-0.9, 0.9)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ERRORS_S, ERRORS_S, st.booleans())
@example(0.03, 0.0, False)
@example(0.03, 0.0, True)
def test_a_session_that_begins_later_wins_whatever_the_clocks_of_the_nodes_say(
    client, one_ahead_s, two_ahead_s, late
):
    """Also if the older session is registered after it, because its node is slow."""
    client.delete("devices")
    one = Node(client, "a", ahead_s=one_ahead_s)
    two = Node(client, "b", ahead_s=two_ahead_s)
    one.beat()
    two.beat()
    with client.pubsub() as heard:
        heard.subscribe("node:a", "node:b")
        for _channel in range(2):
            heard.get_message(timeout=1)
        old, new = one.begin(age_s=0.1), two.begin()
        stale, raised = [], []
        for node, fence in ((two, new), (one, old)) if late else ((one, old), (two, new)):
            stale, raised = node.register("t/veh", fence)
        fence, node = client.hget("devices", "t/veh").split()
        assert node == "b"
        assert int(fence) == max(new, old + 1)
        told = heard.get_message(timeout=0.01)
        said = None if told is None else (told["channel"], told["data"])
        if late:
            assert (stale, raised) == (["t/veh", fence], [])
            is_raised = ("node:b", f"raised t/veh {new} {fence}")
            assert said == (is_raised if int(fence) != new else None)
        else:
            assert (stale, raised) == ([], ["t/veh", str(new), fence] if int(fence) != new else [])
            assert said == ("node:a", f"takeover t/veh {fence}")
    # What was told may be lost: whoever registers again is told again.
    again = ["t/veh", str(new), fence] if int(fence) != new else []
    assert two.register("t/veh", new) == [[], again]
    assert two.register("t/veh", fence) == [[], []]
    assert client.hget("devices", "t/veh") == f"{fence} b"


def test_sessions_of_two_workers_are_ordered_by_their_fences_alone(client):
    """They have one source. When they are registered says nothing."""
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    now = int(time.time() * 1e6)
    assert one.register("t/veh", now, source="gw") == [[], []]
    assert two.register("t/veh", now - 1, source="gw") == [["t/veh", str(now)], []]
    assert two.register("t/veh", now + 1, source="gw") == [[], []]
    assert one.register("t/veh", now + 1, source="gw") == [
        [],
        ["t/veh", str(now + 1), str(now + 2)],
    ]


def test_a_node_whose_clock_is_in_dispute_is_compared_by_its_fences(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    two.ahead_s = 3
    old = two.begin()
    assert two.register("t/veh", old) == [[], []]
    assert one.register("t/veh", one.begin()) == [["t/veh", str(old)], []]


def test_what_an_older_version_has_registered_counts_by_its_fence(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    one.register("t/veh", one.begin(age_s=0.5))
    now = one.begin()
    client.hset("devices", "t/veh", f"{now} a")
    assert two.register("t/veh", now - 100_000) == [["t/veh", str(now)], []]


def test_a_fence_of_a_clock_that_was_ahead_locks_nobody_out(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    now = int(time.time() * 1e6)
    client.hset("devices", "t/veh", f"{now + 3_600_000_000} a")
    assert two.register("t/veh", now) == [[], []]
    # The node itself corrects its own.
    client.hset("devices", "t/veh-2", f"{now + 4_000_000} a")
    assert one.register("t/veh-2", now) == [[], []]
    assert client.hget("devices", "t/veh-2") == f"{now} a"


def test_what_somebody_else_wrote_there_stops_nothing(client):
    node = Node(client, "a")
    node.beat()
    now = int(time.time() * 1e6)
    client.hset("devices", "t/veh", "nonsense")
    assert node.register("t/veh", now) == [[], []]
    client.hset("promises", "other", "nonsense")
    client.hset("calendar", "next", "nonsense")
    client.hset("calendar", "meter", "")
    assert node.lease(1_000) > 5
    assert node.lease(1, promised=20, until=time.time() + 20) > 5


def test_a_dead_node_holds_no_device(client):
    node = Node(client, "a")
    node.beat()
    now = int(time.time() * 1e6)
    client.hset("devices", "t/veh", f"{now + 1_000} dead")
    assert node.register("t/veh", now) == [[], []]

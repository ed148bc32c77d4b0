"""The Lua scripts keep one connection a device, also if the clocks of nodes are wrong."""

import time

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.script_nodes import (
    Node,
)


def test_the_newest_connection_holds_the_device(client):
    one, two = Node(client, "a"), Node(client, "b")
    one.beat()
    two.beat()
    now = int(time.time() * 1e6)
    assert one.register("t/veh", now) == [[], []]
    assert two.register("t/veh", now - 100_000) == [["t/veh", str(now)], []]
    assert two.register("t/veh", now + 100_000) == [[], []]
    assert client.hget("devices", "t/veh") == f"{now + 100_000} b"
    one.unregister("t/veh", now)  # it has been taken over
    assert client.hget("devices", "t/veh") == f"{now + 100_000} b"
    two.unregister("t/veh", now + 100_000)
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
        old, new = one.begin(age_s=0.5), two.begin()
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

"""The Lua scripts keep one calendar, also if clocks are set."""

import time

from support.script_nodes import BURST, HORIZON_S, RATE, STEP_S, Node, close_to


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


def test_the_meter_lends_half_of_what_it_has_and_counts_it(client):
    node = Node(client, "a")
    node.beat()
    began = time.time()
    assert node.lent(5) == 5
    client.delete("calendar")
    assert node.lent(BURST) == BURST / 2
    meter = float(client.hget("calendar", "meter"))
    assert (began - meter) * RATE <= BURST / 2 + 0.1


def test_what_goes_back_unused_makes_no_more_credit_than_the_burst(client):
    node = Node(client, "a")
    node.beat()
    assert node.lent(1_000, admitted=-100.0) == BURST / 2


def test_a_meter_in_debt_lends_nothing(client):
    node = Node(client, "a")
    node.beat()
    client.hset("calendar", "meter", time.time() + 3_600)
    assert node.lent(BURST) == 0

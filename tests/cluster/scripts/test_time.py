"""The Lua scripts keep one time and one memory, also if clocks are set."""

import json
import time

import pytest

from support.script_nodes import MARKED, TIMEOUT_S, Node, close_to, set_clock

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
    assert float(json.loads(reply)[2]) == 75.0


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

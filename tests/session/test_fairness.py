import random

import pytest

from gateway.session.fairness import FairShare, Share


def take_turns(node, shares, rates, turns):
    for _ in range(turns):
        for share, rate in zip(shares, rates, strict=True):
            for _ in range(rate):
                share.sent(1, 100)
        node.end_turn()


def found(shares):
    return [number for number, share in enumerate(shares) if share.greedy]


def fleet(count):
    node = FairShare()
    return node, [Share(node) for _ in range(count)]


def test_a_device_that_sends_far_more_than_the_others_is_greedy_until_it_stops():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 49 + [500], 3)
    assert found(shares) == [49]
    assert node.greedy == 1
    take_turns(node, shares, [1] * 49 + [30], 1)
    assert found(shares) == [49], "its last turn still counts"
    take_turns(node, shares, [1] * 50, 2)
    assert found(shares) == []
    assert node.greedy == 0


@pytest.mark.parametrize(("messages", "greedy"), [(50, 0), (51, 1)])
def test_a_greedy_device_stays_so_while_it_sends_more_than_half_the_limit(messages, greedy):
    node = FairShare(floor=100)
    assert node.greedy == 0
    shares = [Share(node) for _ in range(10)]
    take_turns(node, shares, [1] * 9 + [500], 2)
    assert node.limit == 100
    take_turns(node, shares, [1] * 9 + [messages], 1)
    take_turns(node, shares, [1] * 10, 1)
    assert node.greedy == greedy


def test_no_device_is_greedy_where_all_send_as_much_as_they_can():
    node, shares = fleet(50)
    rng = random.Random(1)
    take_turns(node, shares, [rng.randrange(300, 900) for _ in shares], 4)
    assert found(shares) == []


def test_a_fleet_that_wakes_together_is_cut_down_for_a_turn_at_most():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 50, 3)
    take_turns(node, shares, [500] * 50, 1)
    assert len(found(shares)) == 50
    take_turns(node, shares, [500] * 50, 1)
    assert found(shares) == []


def test_a_device_that_sends_alone_may_send_as_much_as_it_can():
    node, shares = fleet(5)
    take_turns(node, shares, [0, 0, 0, 0, 5_000], 5)
    assert found(shares) == []


@pytest.mark.parametrize("quiet", range(1, 7))
def test_a_few_devices_are_protected_from_one_that_sends_large_messages(quiet):
    node, shares = fleet(quiet + 1)
    for _ in range(4):
        for share in shares[:quiet]:
            for _ in range(20):
                share.sent(1, 100)
        for _ in range(70):
            shares[quiet].sent(1, 65_536)
        node.end_turn()
    assert found(shares) == [quiet]
    assert node.greedy == 1


def test_a_few_that_send_much_do_not_hide_each_other_from_the_quietest():
    node, shares = fleet(4)
    take_turns(node, shares, [1, 900, 900, 900], 4)
    assert found(shares) == [1, 2, 3]


@pytest.mark.parametrize("rates", [[199, 1], [5_000, 5_000, 5_000], [4_000, 400]])
def test_a_few_that_send_alike_or_little_are_not_cut_down(rates):
    node, shares = fleet(len(rates))
    take_turns(node, shares, rates, 4)
    assert found(shares) == []


def test_a_device_that_sends_now_and_then_is_protected_for_some_turns_more():
    node, shares = fleet(2)
    take_turns(node, shares, [1, 900], 2)
    take_turns(node, shares, [0, 900], 10)
    assert found(shares) == [1]
    take_turns(node, shares, [0, 900], 1)
    assert found(shares) == [], "no other device has sent for long"


@pytest.mark.parametrize(("senders", "greedy"), [(7, []), (8, [7])])
def test_from_eight_senders_on_their_mean_counts(senders, greedy):
    node, shares = fleet(senders)
    take_turns(node, shares, [1] * (senders - 1) + [120], 2)
    assert found(shares) == greedy


def test_a_burst_below_the_floor_makes_no_device_greedy():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 49 + [50], 5)
    assert found(shares) == []


def test_several_greedy_devices_do_not_hide_each_other():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 40 + [800] * 10, 4)
    assert found(shares) == list(range(40, 50))


def test_a_device_that_was_silent_is_judged_anew():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 49 + [500], 2)
    take_turns(node, shares[:49], [1] * 49, 3)
    shares[49].sent(1, 100)
    assert found(shares) == []


def test_bytes_count_as_messages_do():
    node, shares = fleet(50)
    for _ in range(3):
        for share in shares[:49]:
            share.sent(1, 2_047)
        shares[49].sent(4, 4 * 65_536)
        node.end_turn()
    assert found(shares) == [49]
    node, shares = fleet(50)
    for _ in range(3):
        for share in shares:
            share.sent(4, 4 * 65_536)
        node.end_turn()
    assert found(shares) == [], "where all send large messages, large ones are nothing special"

import random

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


def test_one_that_sends_far_more_than_the_others_is_greedy_until_it_stops():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 49 + [500], 3)
    assert found(shares) == [49]
    assert node.greedy == 1
    take_turns(node, shares, [1] * 49 + [30], 1)
    assert found(shares) == [49], "its last turn still counts"
    take_turns(node, shares, [1] * 50, 2)
    assert found(shares) == []
    assert node.greedy == 0


def test_where_everybody_sends_all_they_can_nobody_is_greedy():
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


def test_who_is_nearly_alone_may_send_what_it_can():
    node, shares = fleet(5)
    take_turns(node, shares, [1, 1, 1, 1, 5_000], 5)
    assert found(shares) == []


def test_a_burst_below_the_floor_is_nobodys_offence():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 49 + [50], 5)
    assert found(shares) == []


def test_several_greedy_ones_do_not_hide_each_other():
    node, shares = fleet(50)
    take_turns(node, shares, [1] * 40 + [800] * 10, 4)
    assert found(shares) == list(range(40, 50))


def test_who_was_silent_is_judged_anew():
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

"""Facts wait in order and in bounded memory, and the newest of each device is never left out."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.session.presence import Fact, Truth
from gateway.stream.presence.buffer import FACTS_A_DEVICE_MAX, FactBuffer


def fact(fence, online=True, device="a"):
    return Fact("default", device, online, "s", fence, "connected", "n", 0.0)


def taken(buffer, now, facts_max=100):
    return [(each.device, each.fence, each.online) for each in buffer.take(now, facts_max)]


def test_a_fact_lingers_unless_it_is_prompt():
    buffer = FactBuffer(linger_s=1.0, facts_max=10)
    buffer.add(fact(1), 0.0, prompt=False)
    buffer.add(fact(2, False, "b"), 0.5, prompt=True)
    assert buffer.due_at == 0.5
    assert taken(buffer, 0.5) == [("b", 2, False)]
    assert buffer.due_at == 1.0
    assert taken(buffer, 0.9) == []
    assert taken(buffer, 1.0) == [("a", 1, True)]
    assert len(buffer) == 0
    assert buffer.due_at is None


def test_a_fact_says_whether_it_is_due_before_those_that_wait():
    buffer = FactBuffer(linger_s=1.0, facts_max=10)
    assert buffer.add(fact(1), 0.0, prompt=False)
    assert not buffer.add(fact(2, device="b"), 0.1, prompt=False)
    assert not buffer.add(fact(1, False), 0.2, prompt=True)  # it waits behind its beginning
    assert buffer.add(fact(3, False, "c"), 0.3, prompt=True)
    assert not buffer.add(fact(4, False, "d"), 0.4, prompt=True)


def test_the_end_of_a_session_does_not_overtake_its_beginning():
    buffer = FactBuffer(linger_s=1.0, facts_max=10)
    buffer.add(fact(1), 0.0, prompt=False)
    buffer.add(fact(1, False), 0.1, prompt=True)
    assert taken(buffer, 0.1) == []
    assert taken(buffer, 1.0) == [("a", 1, True), ("a", 1, False)]


def test_what_lingers_is_not_kept_back_by_what_is_prompt():
    buffer = FactBuffer(linger_s=1.0, facts_max=100)
    buffer.add(fact(1), 0.0, prompt=False)
    for number in range(10):
        buffer.add(fact(number, False, f"p{number}"), 2.0, prompt=True)
    assert taken(buffer, 2.0, 1) == [("a", 1, True)]


def test_at_a_stop_nothing_lingers():
    buffer = FactBuffer(linger_s=60.0, facts_max=10)
    buffer.add(fact(1), 0.0, prompt=False)
    buffer.hurry()
    assert taken(buffer, 0.0) == [("a", 1, True)]


def test_a_device_that_flaps_leaves_its_last_fact():
    buffer = FactBuffer(linger_s=1.0, facts_max=1_000)
    for fence in range(1, FACTS_A_DEVICE_MAX + 2):
        buffer.add(fact(fence), 0.0, prompt=False)
    assert buffer.coalesced == FACTS_A_DEVICE_MAX
    assert taken(buffer, 1.0) == [("a", FACTS_A_DEVICE_MAX + 1, True)]


def test_beyond_the_bound_the_oldest_are_dropped_and_counted():
    buffer = FactBuffer(linger_s=1.0, facts_max=3)
    for number in range(5):
        buffer.add(fact(1, device=f"d{number}"), 0.0, prompt=False)
    assert (len(buffer), buffer.dropped) == (3, 2)
    assert [device for device, _, _ in taken(buffer, 1.0)] == ["d2", "d3", "d4"]


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 30), st.booleans(), st.booleans()), max_size=80
    ),
    st.lists(st.integers(1, 80), max_size=8),
)
def test_the_truth_survives_the_buffer(states, takes):
    """With room for one fact of each device, the newest of each is stored in the end."""
    buffer = FactBuffer(linger_s=1.0, facts_max=5)
    known, stored = Truth(), Truth()
    for turn, (device, fence, online, prompt) in enumerate(states):
        each = fact(fence, online, f"d{device}")
        known.take(each)
        buffer.add(each, float(turn), prompt=prompt)
        assert len(buffer) <= 5
        if turn in takes:
            for one in buffer.take(float(turn), 2):
                stored.take(one)
    for one in buffer.take(1e9, 1_000):
        stored.take(one)
    assert buffer.dropped == 0
    assert len(buffer) == 0
    assert {(f.key, f.fence, f.online) for f in stored} == {
        (f.key, f.fence, f.online) for f in known
    }

import pytest

from gateway.stream.lanes.standing import NEVER, Resume, Standing, Standings

WINDOW_S = 100.0
KEY = ("t", "d", "o")
MAX = 256


def standing():
    return Standing(KEY, WINDOW_S)


def hello(oldest, sent=None, age_ms=0):
    return Resume(oldest, age_ms, sent)


def test_nothing_is_certain_of_an_unknown_outbox():
    known = standing()
    assert known.resume(hello(1), 0.0) is None
    assert known.absent_at(1) == NEVER
    assert known.doubt_seq > 2**53, "all that comes may be a repeat"


@pytest.mark.parametrize("age_ms", [0, 10**12])
def test_a_device_that_sent_nothing_in_doubt_needs_no_look_up_whatever_its_clock_says(age_ms):
    known = standing()
    told = hello(8, sent=7, age_ms=age_ms)
    assert known.resume(told, 5.0) == 7
    known.doubt(told, 7, MAX)
    assert (known.doubt_seq, known.absent_at(8), known.unsure) == (7, 5.0, False)


def test_what_the_stream_answered_lets_a_device_resume_for_a_while():
    known = standing()
    known.found(41, 10.0)
    assert known.resume(hello(42), 50.0) == 41
    assert known.unsure, "what it sends again may be a repeat"
    assert known.resume(hello(42), 50.1) is None, "0.4 of the window"
    assert known.resume(hello(30), 50.0) == 41, "as a look-up would say"
    assert known.absent_at(42) == 10.0
    assert known.absent_at(41) == NEVER


def test_of_two_answers_of_one_moment_the_later_counts():
    known = standing()
    known.learn(41, 10.0)
    known.learn(39, 10.0)
    assert (known.absent_at(39), known.absent_at(40)) == (NEVER, 10.0)
    known.learn(41, 9.0)
    assert known.absent_at(40) == 10.0, "an answer from before is no news"


def test_an_age_beyond_half_the_window_only_adds_look_ups():
    known = standing()
    known.found(41, 10.0)
    assert known.resume(hello(42, age_ms=50_000), 11.0) == 41
    assert known.resume(hello(42, age_ms=50_001), 11.0) is None


def test_a_device_that_sends_can_resume_what_it_sent_for_some_time():
    known = standing()
    known.found(0, 0.0)
    for tenth in range(1, 1_000):
        now = tenth / 10
        if now > known.renew_at:
            known.sent_first(tenth, now)
    # The last two facts are 12.5 s apart, and the last is at most that old.
    unheard = 999 - 120
    assert known.resume(hello(unheard), 100.0) == unheard - 1
    assert known.resume(hello(999 - 300), 100.0) is None


def test_a_newer_fact_that_says_more_replaces_both():
    known = standing()
    known.learn(10, 1.0)
    known.learn(20, 2.0)
    known.learn(5, 3.0)
    assert (known.absent_at(6), known.absent_at(11), known.absent_at(5)) == (3.0, 3.0, NEVER)
    known.learn(30, 2.5)
    assert known.absent_at(31) == 3.0, "an older one says nothing new"


def test_a_fact_that_says_less_leaves_the_older_in_force():
    known = standing()
    known.learn(10, 1.0)
    known.learn(20, 2.0)
    assert (known.absent_at(15), known.absent_at(21)) == (1.0, 2.0)
    known.learn(15, 3.0)
    assert (known.absent_at(12), known.absent_at(16)) == (1.0, 3.0)


def test_without_sent_a_device_may_have_sent_what_its_credit_allowed():
    known = standing()
    known.found(10, 0.0)
    told = hello(5)
    assert known.resume(told, 1.0) == 10
    known.doubt(told, 10, MAX)
    assert known.doubt_seq == 10 + MAX


def test_a_device_is_not_told_that_more_is_settled_than_it_sent():
    """The outbox is a copy of one that came further under the same id."""
    known = standing()
    known.found(1_000, 0.0)
    told = hello(6, sent=20)
    assert known.resume(told, 1.0) == 20
    known.doubt(told, 20, MAX)
    assert (known.doubt_seq, known.stored) == (20, 20)


def test_a_copy_that_does_not_say_what_it_sent_sends_again_so_that_it_can_be_compared():
    known = standing()
    known.found(3, 0.0)
    known.stored = 10
    assert known.resume(hello(6), 1.0) == 5
    assert known.resume(hello(6, sent=12), 1.0) == 10


def test_standings_are_shared_and_bounded_and_the_least_used_go_first():
    standings = Standings(WINDOW_S, most=2)
    first = standings.of("t", "a", "o", 0.0)
    standings.of("t", "b", "o", 0.0)
    assert standings.of("t", "a", "o", 0.0) is first
    standings.of("t", "c", "o", 0.0)
    assert len(standings) == 2
    assert standings.of("t", "a", "o", 0.0) is first
    assert first.device == "t.a"


def test_standings_of_no_use_are_dropped_as_others_come():
    standings = Standings(WINDOW_S)
    for second in range(10_000):
        standings.of("t", f"d{second}", "o", float(second))
    assert len(standings) <= 2 * WINDOW_S


def test_a_standing_with_a_fresh_fact_is_kept_however_long_ago_its_session_began():
    standings = Standings(WINDOW_S)
    old = standings.of("t", "sends", "o", 0.0)
    for second in range(10_000):
        old.found(second, float(second))
        standings.of("t", f"d{second}", "o", float(second))
    assert standings.of("t", "sends", "o", 10_000.0) is old

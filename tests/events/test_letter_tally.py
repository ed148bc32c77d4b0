import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events.letter_tally import KINDS_MAX, LetterTally, Waiting


def test_letters_wait_until_they_are_sent_again_or_expire():
    tally = LetterTally()
    assert (tally.waiting(), tally.oldest_ns()) == ([], None)
    for seq, error in ((1, "schema"), (2, "http_503"), (3, "schema"), (4, "schema")):
        tally.letter(seq, "rule" if error == "http_503" else "schema", error, seq * 10)
    assert tally.waiting() == [Waiting("schema", "schema", 3), Waiting("rule", "http_503", 1)]
    tally.sent_again(1)
    tally.sent_again(1)
    assert (tally.waiting()[0].letters, tally.oldest_ns()) == (2, 20)
    tally.expired(4)
    assert tally.waiting() == [Waiting("schema", "schema", 1), Waiting("rule", "http_503", 0)]
    assert tally.oldest_ns() == 40
    tally.sent_again(2)  # expired since
    tally.sent_again(4)
    assert tally.oldest_ns() is None


def test_letters_that_have_expired_take_no_room():
    tally = LetterTally()
    for seq in range(1, 5_001):
        tally.letter(seq, "rule", "http_503", seq)
        tally.expired(seq - 100)
    (kind,) = tally._kinds.values()
    assert len(kind._seqs) == len(kind._stored_ns) == len(kind._sent) < 3_000
    assert tally.waiting() == [Waiting("rule", "http_503", 101)]


def test_a_fact_may_be_read_before_its_letter():
    tally = LetterTally()
    tally.sent_again(2)
    tally.letter(1, "sink", "column", 10)
    tally.letter(2, "sink", "column", 20)
    assert tally.waiting() == [Waiting("sink", "column", 1)]


def test_kinds_are_bounded():
    tally = LetterTally()
    for seq in range(1, KINDS_MAX + 51):
        tally.letter(seq, "rule", f"http_{seq}", seq)
    found = tally.waiting()
    assert len(found) == KINDS_MAX + 1
    assert found[-1] == Waiting("rule", "other", 50)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_it_agrees_with_a_plain_count(seed):
    rng = random.Random(seed)
    tally, letters, sent, first = LetterTally(), {}, set(), 1
    for seq in range(1, 4_000):
        tally.letter(seq, "rule", error := rng.choice("ab"), seq)
        letters[seq] = error
        if rng.random() < 0.3:
            done = rng.randrange(1, seq + 3)
            sent.add(done)
            tally.sent_again(done)
        if rng.random() < 0.01:
            first = rng.randrange(first, seq + 1)
            tally.expired(first)
    waiting = [seq for seq in letters if seq >= first and seq not in sent]
    for each in tally.waiting():
        assert each.letters == sum(letters[seq] == each.error for seq in waiting)
    assert tally.oldest_ns() == min(waiting, default=None)

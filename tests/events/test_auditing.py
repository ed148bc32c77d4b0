import pytest

from gateway.events.auditing import Audit


def audit(seqs, letters=(), outbox="o1"):
    found = Audit()
    for place, seq in enumerate(seqs, 1):
        found.event(place, "events.t.d.a", f"t:d:{outbox}:{seq}", b"1")
    for seq in letters:
        found.letter(f"t:d:{outbox}:{seq}")
    return found


@pytest.mark.parametrize(
    ("seqs", "letters"),
    [
        ([], []),
        ([1, 2, 3], []),
        ([7, 8], []),  # the beginning has expired
        ([1, 3, 6], [2, 4, 5]),
        ([2], [1, 3]),
        ([], [1, 5]),
    ],
)
def test_what_is_sound(seqs, letters):
    found = audit(seqs, letters)
    assert list(found.problems()) == []
    assert (found.events, found.letters) == (len(seqs), len(letters))


@pytest.mark.parametrize(
    ("seqs", "letters", "said"),
    [
        ([1, 3], [], "seq 2 is neither an event nor a letter"),
        ([1, 9], [4], "seqs 2 to 3 are neither"),
        ([1, 2], [4], "seq 3 is neither"),
        ([1, 2, 2], [], "seq 2 is stored behind 2 (stream sequence 3)"),
        ([1, 2, 3, 2], [], "seq 2 is stored behind 3"),
        ([1, 2, 3], [2], "seq 2 is an event and a letter"),
    ],
)
def test_what_is_not_sound(seqs, letters, said):
    lines = list(audit(seqs, letters).problems())
    assert said in lines[0]
    assert lines[0].startswith("t/d outbox o1: ")


def test_a_long_list_is_shortened():
    lines = list(audit(range(1, 100, 2)).problems())
    assert len(lines) == 6
    assert lines[-1].endswith("and 44 more")


def test_what_no_device_sent_is_counted_and_judges_nothing():
    found = audit([1, 2])
    found.event(3, "events.t.d.a", "t:d:redrive/schema:1", b"1")
    found.event(4, "events.t.d.a", "", b"1")
    found.letter("t:d:o1:1:digest")
    assert list(found.problems()) == []
    assert (found.others, found.outboxes) == (2, 1)


def test_a_digest_is_of_what_was_read():
    assert audit([1, 2]).digest == audit([1, 2]).digest
    assert audit([1, 2]).digest != audit([2, 1]).digest
    assert audit([1]).digest != audit([1], outbox="o2").digest

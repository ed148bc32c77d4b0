"""One node remembers one slot for each device, within bounds."""

from gateway.admission.promises import Promises


def made(entries_max=100, keep_s=310.0):
    return Promises(entries_max=entries_max, keep_s=keep_s)


def test_a_slot_is_held_until_it_is_spent():
    promises = made()
    promises.hold(b"a", 5.0, now=0.0)
    assert promises.slot_of(b"a") == 5.0
    assert promises.used_slot_of(b"a") is None
    promises.spend(b"a", 5.0, now=5.0)
    assert promises.slot_of(b"a") is None
    assert promises.used_slot_of(b"a") == 5.0
    assert promises.used_slot_of(b"b") is None


def test_a_device_that_was_cut_off_has_its_slot_again():
    promises = made()
    promises.spend(b"a", 5.0, now=5.0)
    promises.restore(b"a", 5.0, now=5.0)
    assert promises.slot_of(b"a") == 5.0
    assert promises.used_slot_of(b"a") is None


def test_the_longest_known_goes_first_when_there_are_too_many():
    promises = made(entries_max=2)
    for holder in (b"a", b"b", b"a", b"c"):
        promises.hold(holder, 1.0, now=0.0)
    assert promises.slot_of(b"b") is None
    assert promises.slot_of(b"a") == promises.slot_of(b"c") == 1.0


def test_a_holder_that_was_put_again_and_again_goes_with_its_last_put():
    promises = made(entries_max=3)
    for slot_at in range(5):
        promises.hold(b"a", slot_at, now=0.0)
    for name in (b"b", b"c"):
        promises.hold(name, 9.0, now=0.0)
        assert promises.slot_of(b"a") == 4
    promises.hold(b"d", 9.0, now=0.0)
    assert promises.slot_of(b"a") is None
    assert len(promises) == 3


def test_a_slot_that_is_promised_after_another_was_used_outlives_it():
    promises = made(entries_max=2)
    promises.hold(b"a", 1.0, now=0.0)
    promises.spend(b"a", 1.0, now=1.0)
    promises.hold(b"a", 2.0, now=1.0)
    promises.hold(b"b", 2.0, now=1.0)
    assert promises.slot_of(b"a") == 2.0
    promises.hold(b"c", 2.0, now=1.0)
    assert promises.slot_of(b"a") is None


def test_a_slot_that_was_used_is_the_first_to_be_forgotten():
    promises = made(keep_s=10.0)
    promises.hold(b"a", 50.0, now=0.0)
    promises.spend(b"a", 50.0, now=50.0)
    promises.hold(b"b", 90.0, now=60.5)
    assert len(promises) == 2, "the slot that a has used, and that of b"


def test_what_no_ticket_can_show_any_more_is_forgotten():
    promises = made(entries_max=1_000, keep_s=10.0)
    for second in range(100):
        for number in range(5):
            promises.hold(b"%d-%d" % (second, number), second, now=second)
    assert len(promises) == 5 * 11
    assert promises.slot_of(b"89-0") == 89
    assert promises.slot_of(b"88-0") is None


def test_a_slot_that_is_older_than_any_valid_ticket_is_forgotten_though_it_is_the_only_one():
    promises = Promises(entries_max=10, keep_s=10.0)
    promises.spend(b"a", 0.0, 100.0)
    assert len(promises) == 0

"""Which devices have commands waiting, and when each must be looked at."""

from gateway.stream.queue.index import QueueIndex, Waiting

KEY, OTHER = ("default", "veh-1"), ("default", "veh-2")


def test_commands_of_a_device_come_in_the_order_of_the_stream():
    index = QueueIndex()
    for seq in (3, 5, 9):
        index.add(KEY, Waiting(seq, f"c-{seq}", 100.0))
    index.add(OTHER, Waiting(4, "c-4", 100.0))
    assert index.next(KEY, ()).seq == 3
    assert index.next(KEY, {"c-3"}).seq == 5
    index.remove(KEY, 3)
    assert index.next(KEY, ()).seq == 5
    assert index.next(KEY, {"c-5", "c-9"}) is None
    assert (len(index), index.devices) == (3, 2)


def test_an_entry_that_is_read_again_counts_once():
    index = QueueIndex()
    for _ in range(2):
        index.add(KEY, Waiting(3, "c", 1.0))
    assert len(index) == 1
    index.remove(KEY, 3)
    index.remove(KEY, 3)
    assert (len(index), KEY in index) == (0, False)


def test_it_is_full_at_its_bound_until_an_entry_goes():
    index = QueueIndex(entries_max=2)
    for seq in (1, 2):
        assert not index.full
        index.add(KEY, Waiting(seq, str(seq), 1.0))
    assert index.full
    index.remove(KEY, 1)
    assert not index.full


def test_entries_are_named_once_their_time_has_passed_at_most_so_many_at_once():
    index = QueueIndex()
    for seq, moment in ((1, 30.0), (2, 10.0), (3, 20.0), (4, 99.0)):
        index.add(KEY, Waiting(seq, str(seq), moment))
    index.remove(KEY, 3)
    assert [waiting.seq for _, waiting in index.due(50.0, 1)] == [2]
    assert [waiting.seq for _, waiting in index.due(50.0, 10)] == [1]
    assert list(index.due(50.0, 10)) == []
    index.look_again(KEY, 1, 60.0)
    assert list(index.due(59.0, 10)) == []
    assert [waiting.seq for _, waiting in index.due(60.0, 10)] == [1]


def test_the_oldest_entry_is_the_first_that_is_still_here():
    index = QueueIndex()
    assert index.oldest_at is None
    index.add(KEY, Waiting(1, "c-1", 100.0, 10.0))
    index.add(OTHER, Waiting(2, "c-2", 100.0, 11.0))
    index.add(KEY, Waiting(3, "c-3", 100.0, 12.0))
    assert index.oldest_at == 10.0
    index.remove(OTHER, 2)
    assert index.oldest_at == 10.0
    index.remove(KEY, 1)
    assert index.oldest_at == 12.0
    index.remove(KEY, 3)
    assert index.oldest_at is None


def test_an_old_entry_that_stays_does_not_keep_the_later_ones_in_mind():
    index = QueueIndex()
    index.add(OTHER, Waiting(1, "stays", 1e9, 10.0))
    for seq in range(2, 1_000):
        index.add(KEY, Waiting(seq, str(seq), 1e9, 11.0))
        index.remove(KEY, seq)
    assert index.oldest_at == 10.0
    assert len(index._order) < 100

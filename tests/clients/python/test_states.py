"""Which version of a state replaces which, and what is kept on the disk."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.outboxes import refuse_commits
from tidegate.errors import OutboxError
from tidegate.states import StateRecord, objection, replaces


@pytest.mark.parametrize(
    ("version", "held", "newer"),
    [
        ("e-2", "e-1", True),
        ("e-1", "e-1", False),
        ("e-1", "e-2", False),
        ("e-10", "e-9", True),
        ("e-9", "e-10", False),
        ("f-1", "e-900", True),
        ("e-f-1", "e-f-2", False),
        ("e-f-1", "e-900", True),
        ("2", "1", True),
        ("1", "2", False),
        ("e-x", "e-1", True),
        ("e-x", "e-x", False),
        ("e-\u0661", "e-2", True),
        ("e-" + "9" * 30, "e-1", True),
        ("", "e-1", True),
    ],
)
def test_a_higher_number_or_another_epoch_replaces(version, held, newer):
    assert replaces(version, held) is newer


NUMBERS = st.integers(0, 10**19)


@given(st.lists(NUMBERS, min_size=1), st.randoms())
def test_whatever_the_order_the_highest_number_of_an_epoch_is_left(numbers, rng):
    rng.shuffle(numbers)
    held = f"e-{numbers[0]}"
    for number in numbers:
        if replaces(f"e-{number}", held):
            held = f"e-{number}"
    assert held == f"e-{max(numbers)}"


@pytest.mark.parametrize("desired", ["[]", "1", "null", '"x"', "{", "9" * 5_000, "[" * 50_000])
def test_a_state_that_is_no_object_is_objected_to(desired):
    assert objection(StateRecord("e-1", desired.encode())) is not None


@pytest.mark.parametrize("version", ["", "v" * 257])
def test_a_version_has_a_bound(version):
    assert "characters" in objection(StateRecord(version, b"{}"))


GOOD = StateRecord("e-7", b'{"limit":3}')


def test_the_newest_state_is_in_the_file(open_box):
    outbox = open_box()
    assert outbox.states.kept is None
    outbox.states.save(StateRecord("e-6", b"{}"))
    outbox.states.save(GOOD)
    outbox.close()
    assert open_box().states.kept == GOOD


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE desired SET desired = x'7b7b'",
        "UPDATE desired SET desired = '{}'",
        "UPDATE desired SET version = ''",
        "DROP TABLE desired",
        "ALTER TABLE desired RENAME COLUMN version TO v",
    ],
)
def test_a_damaged_state_is_none_and_the_outbox_is_not_affected(open_box, damage):
    outbox = open_box()
    outbox.states.save(GOOD)
    outbox._file.database.execute(damage)
    outbox.close()
    assert open_box().states.kept is None


def test_a_state_that_the_disk_refuses_leaves_the_earlier_one(open_box):
    outbox = open_box()
    outbox.states.save(GOOD)
    refuse_commits(outbox)
    with pytest.raises(OutboxError):
        outbox.states.save(StateRecord("e-8", b"{}"))
    outbox.close()
    assert open_box().states.kept == GOOD


def test_each_reader_has_a_state_of_its_own():
    first = GOOD.decode()
    first.desired["limit"] = 4
    assert GOOD.decode().desired == json.loads(GOOD.desired)

"""Which worker takes the next connection."""

import os

import pytest

from gateway.node.board import (
    AHEAD_BY,
    AHEAD_S,
    BELIEVED_S,
    CLOSED_S,
    LOOK_S,
    AcceptTurns,
    Board,
    Row,
    WorkerFences,
    leave_s,
    make_page,
)

NOW = 100.0


def row(connections=0, *, taking=True, age_s=0.0):
    return Row(taking, connections, NOW - age_s)


@pytest.mark.parametrize(
    ("own", "others", "wanted"),
    [
        (row(), [], 0.0),
        (row(taking=False), [], 0.0),
        (row(taking=False), [row(taking=False)], 0.0),
        (row(taking=False), [row(age_s=BELIEVED_S + 0.1)], 0.0),
        (row(taking=False), [row(taking=False), row()], CLOSED_S),
        (row(AHEAD_BY), [row(0)], 0.0),
        (row(AHEAD_BY + 1), [row(0)], AHEAD_S),
        (row(AHEAD_BY + 1), [row(0, taking=False)], 0.0),
        (row(AHEAD_BY + 1), [row(500), row(0)], AHEAD_S),
        (row(9_000), [row(8_000)], 0.0),
        (row(9_001), [row(8_000)], AHEAD_S),
    ],
)
def test_connections_are_left_to_those_that_have_room(own, others, wanted):
    assert leave_s(own, others, NOW) == wanted


@pytest.fixture
def page():
    descriptor = make_page(3)
    yield descriptor
    os.close(descriptor)


def test_what_one_worker_writes_the_others_read(page):
    one, other = Board(page, 3), Board(page, 3)
    one.write(1, Row(True, 7, 12.5))
    assert other.read(1) == Row(True, 7, 12.5)
    assert other.others(1) == [Row(False, 0, 0.0)] * 2
    other.clear(1)
    assert one.read(1) == Row(False, 0, 0.0)


def test_fences_of_all_workers_are_on_the_page_and_outlive_their_worker(page):
    one, other = Board(page, 3), Board(page, 3)
    fences = [WorkerFences(board, worker) for worker, board in enumerate([one, other])]
    assert fences[0].highest_fence() == 0
    fences[0].write_fence(1_700_000_000_000_000)
    fences[1].write_fence(1_600_000_000_000_000)
    other.clear(0)
    assert fences[1].highest_fence() == 1_700_000_000_000_000
    assert one.others(0) == [Row(False, 0, 0.0)] * 2
    one.close()
    other.close()


def test_the_board_is_looked_at_once_in_a_while_and_each_time_after_a_rest(page):
    board, now, mine = Board(page, 3), [NOW], [0]
    turns = AcceptTurns(
        board, 0, is_open=lambda: True, connections=lambda: mine[0], clock=lambda: now[0]
    )
    board.write(2, row(0))
    assert turns.leave_s() == 0.0
    mine[0] = AHEAD_BY + 1
    assert turns.leave_s() == 0.0
    now[0] += 2 * LOOK_S
    assert turns.leave_s() == turns.leave_s() == AHEAD_S
    assert board.read(0) == Row(True, AHEAD_BY + 1, now[0])
    mine[0] = 0
    assert turns.leave_s() == 0.0
    board.close()


def test_a_worker_that_has_just_become_full_looks_at_once(page):
    board, mine = Board(page, 3), [True]
    turns = AcceptTurns(board, 0, is_open=lambda: mine[0], connections=lambda: 1, clock=lambda: NOW)
    board.write(2, row(0))
    assert turns.leave_s() == 0.0
    mine[0] = False
    assert turns.leave_s() == CLOSED_S
    board.close()

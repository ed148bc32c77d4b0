"""The commands in the outbox file: each id is handed over once, whatever copy a kill leaves."""

import random
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.outboxes import SetClocks, refuse_commits
from tidegate import command_log
from tidegate.command_log import EXPIRED_RESULT, UNKNOWN_RESULT, Arrival, Kept, Outcome, Receipt
from tidegate.errors import OutboxError
from tidegate.outbox import Outbox

DONE = Outcome(True, b'{"n":1}')
UNKNOWN = Outcome(False, UNKNOWN_RESULT)
EXPIRED = Outcome(False, EXPIRED_RESULT)


def arrival(identity="c1", data=b"1"):
    return Arrival(identity, "t", data)


def receive(outbox, *identities):
    return outbox.commands.advance([arrival(each) for each in identities], [])


def kept(open_box, outbox):
    """What the next opening of the file finds."""
    outbox.close()
    following = open_box()
    following.close()
    return following.commands.kept


def test_a_command_that_was_not_handed_over_is_kept_for_the_next_opening(open_box):
    outbox = open_box()
    assert receive(outbox, "c1", "c2") == [Receipt(True), Receipt(True)]
    assert kept(open_box, outbox) == [Kept("c1", "t", b"1", None), Kept("c2", "t", b"1", None)]


def test_a_command_that_was_handed_over_and_not_answered_is_unknown(open_box):
    outbox = open_box()
    receive(outbox, "c1")
    outbox.commands.give("c1")
    assert [each.outcome for each in kept(open_box, outbox)] == [UNKNOWN]


def test_a_result_is_kept_until_it_is_settled(open_box):
    outbox = open_box()
    receive(outbox, "c1")
    outbox.commands.give("c1")
    outbox.commands.finish("c1", DONE)
    assert receive(outbox, "c1") == [Receipt(False)]
    assert [each.outcome for each in kept(open_box, outbox)] == [DONE]
    outbox = open_box()
    outbox.commands.advance([], ["c1", "nobody knows this one"])
    assert receive(outbox, "c1") == [Receipt(False, DONE)]
    assert kept(open_box, outbox) == []


def receive_for(outbox, ttl_s):
    arrival = Arrival("c1", "t", b"1", outbox.now_ms + int(ttl_s * 1000))
    outbox.commands.advance([arrival], [])


def test_a_command_is_not_handed_over_after_its_time(open_box):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    receive_for(outbox, 60.0)
    clocks.pass_s(60.0)
    assert outbox.commands.give("c1") == EXPIRED
    assert outbox.commands.give("c1") == EXPIRED, "asked again, it stays so"
    assert [each.outcome for each in kept(open_box, outbox)] == [EXPIRED]


def test_a_command_is_handed_over_before_its_time_whatever_the_wall_clock_says(open_box):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    receive_for(outbox, 60.0)
    clocks.pass_s(59.0)
    clocks.wall_s += 10 * 365 * 86_400.0
    assert outbox.commands.give("c1") is None
    assert [each.outcome for each in kept(open_box, outbox)] == [UNKNOWN]


@pytest.mark.parametrize(("boots", "off_s"), [(0, 61.0), (1, 61.0)])
def test_the_time_of_a_command_passes_while_its_device_is_off(open_box, boots, off_s):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    receive_for(outbox, 60.0)
    outbox.close()
    if boots:
        clocks.reboot(off_s)
    else:
        clocks.pass_s(off_s)
    assert open_box(clocks=clocks).commands.give("c1") == EXPIRED


def test_a_clock_that_was_never_set_does_not_expire_a_command(open_box):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    receive_for(outbox, 60.0)
    outbox.close()
    clocks.reboot(off_s=0.0, wall_s=0.0)
    assert open_box(clocks=clocks).commands.give("c1") is None


def test_times_pass_without_a_wall_clock_over_several_openings(open_box):
    clocks = SetClocks(wall_s=0.0)
    open_box(clocks=clocks).close()
    clocks.reboot(off_s=0.0, wall_s=0.0)
    outbox = open_box(clocks=clocks)
    clocks.up_s += 30.0
    receive_for(outbox, 60.0)
    outbox.close()
    clocks.up_s += 61.0
    assert open_box(clocks=clocks).commands.give("c1") == EXPIRED


def test_the_time_of_a_command_is_forgotten_with_its_result(open_box):
    outbox = open_box()
    receive_for(outbox, 60.0)
    outbox.commands.finish("c1", DONE)
    outbox.commands.advance([], ["c1"])
    assert outbox._file.database.execute("SELECT count(*) FROM command_times").fetchone() == (0,)


def test_an_unknown_result_stays_unknown_when_it_is_settled(open_box):
    outbox = open_box()
    receive(outbox, "c1")
    outbox.commands.give("c1")
    outbox.commands.advance([], ["c1"])
    assert receive(outbox, "c1") == [Receipt(False, UNKNOWN)]


def test_a_long_result_is_not_kept_once_it_is_settled(open_box):
    outbox = open_box()
    receive(outbox, "c1")
    outbox.commands.finish("c1", Outcome(True, b'"' + b"x" * 2_000 + b'"'))
    outbox.commands.advance([], ["c1"])
    assert receive(outbox, "c1") == [Receipt(False, Outcome(True, b"null"))]


def test_the_disk_refuses_all_or_nothing(open_box):
    outbox = open_box()
    refuse_commits(outbox)
    with pytest.raises(OutboxError):
        receive(outbox, "c1")
    refuse_commits(outbox, refused=False)
    assert receive(outbox, "c1") == [Receipt(True)]
    refuse_commits(outbox)
    with pytest.raises(OutboxError):
        outbox.commands.give("c1")
    assert [each.outcome for each in kept(open_box, outbox)] == [None]


def settle(outbox, identities):
    receive(outbox, *identities)
    outbox.commands.advance([], identities)


def known(outbox):
    return outbox._file.database.execute("SELECT count(*) FROM commands").fetchone()[0]


def test_so_many_ids_are_remembered_and_no_more(open_box, monkeypatch):
    monkeypatch.setattr(command_log, "REMEMBERED_MAX", 200)
    outbox = open_box()
    for first in range(0, 1_000, 50):
        settle(outbox, [str(n) for n in range(first, first + 50)])
        assert known(outbox) <= 200 + command_log._TRIM_EVERY
    assert [each.is_new for each in receive(outbox, "0", "999")] == [True, False]


def test_ids_are_forgotten_after_their_time_but_for_the_newest(open_box):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    settle(outbox, [f"old{n}" for n in range(300)])
    clocks.pass_s(command_log.REMEMBERED_S + 1)
    settle(outbox, [f"new{n}" for n in range(100)])
    assert known(outbox) == 100
    clocks.wall_s = 0.0
    settle(outbox, [f"later{n}" for n in range(100)])
    assert known(outbox) == 200, "a wall clock that was set back forgets nothing"


def test_a_clock_that_jumps_across_a_reboot_leaves_the_newest_ids(open_box):
    clocks = SetClocks()
    outbox = open_box(clocks=clocks)
    settle(outbox, [f"old{n}" for n in range(300)])
    outbox.close()
    clocks.reboot(off_s=10 * 365 * 86_400.0)
    outbox = open_box(clocks=clocks)
    settle(outbox, [f"new{n}" for n in range(99)])
    settle(outbox, ["last"])
    assert [each.is_new for each in receive(outbox, "new0", "last")] == [False, False]


def test_a_file_without_commands_and_an_older_client_are_not_affected(open_box):
    outbox = open_box()
    assert outbox.commands.kept == []
    tables = {name for (name,) in outbox._file.database.execute("SELECT name FROM sqlite_master")}
    assert not {"commands", "desired"} & tables, "they are made when they are needed"
    receive(outbox, "c1")
    (version,) = outbox._file.database.execute("PRAGMA user_version").fetchone()
    assert version == 2, "an older client opens the file"


STEPS = ("arrive", "arrive", "arrive", "give", "give", "finish", "finish", "settle", "kill")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.sampled_from(STEPS), min_size=10, max_size=80), seed=st.integers(0, 2**32))
def test_no_kill_hands_an_id_over_twice_or_out_of_order(tmp_path_factory, steps, seed):
    world = World(tmp_path_factory.mktemp("w"), random.Random(seed))
    for step in steps:
        getattr(world, step)()
    world.kill()
    world.check()


class World:
    """A gateway that sends ids again and again, and an application that records what it gets."""

    def __init__(self, directory, rng):
        self.directory, self.rng = directory, rng
        self.kills = 0
        self.made = 0
        self.given, self.settled = [], set()
        self.done, self.answered = set(), set()
        self.waiting, self.running = [], set()
        self.outbox = Outbox(directory / "box0")

    def arrive(self):
        """New commands and old ones, in one batch or in several."""
        again = [f"{self.rng.randrange(self.made):05}"] if self.made else []
        fresh = [f"{self.made + n:05}" for n in range(self.rng.randint(0, 3))]
        self.made += len(fresh)
        identities = again + fresh
        receipts = receive(self.outbox, *identities)
        for identity, receipt in zip(identities, receipts, strict=True):
            if identity in again:
                assert not receipt.is_new, "it was received before"
                assert (receipt.outcome is not None) == (identity in self.settled)
            else:
                assert receipt.is_new
                self.waiting.append(identity)

    def give(self):
        if self.waiting:
            identity = self.waiting.pop(0)
            self.outbox.commands.give(identity)
            if self.rng.random() < 0.2:
                self.kill()  # recorded, and killed before it was handed over
                return
            self.given.append(identity)
            self.running.add(identity)

    def finish(self):
        if self.running:
            identity = self.rng.choice(sorted(self.running))
            self.running.discard(identity)
            self.outbox.commands.finish(identity, DONE)
            self.done.add(identity)
            self.answered.add(identity)

    def settle(self):
        ready = sorted(self.answered - self.settled)
        if ready:
            identity = self.rng.choice(ready)
            self.outbox.commands.advance([], [identity])
            self.settled.add(identity)

    def kill(self):
        """The file as it is now is all that is left: a copy of it is opened."""
        self.kills += 1
        left = self.directory / f"box{self.kills}"
        for suffix in ("", "-wal"):
            source = self.directory / f"box{self.kills - 1}{suffix}"
            if source.exists():
                shutil.copy(source, f"{left}{suffix}")
        self.outbox.close()
        self.outbox = Outbox(left)
        self.running = set()
        self.waiting = [each.id for each in self.outbox.commands.kept if each.outcome is None]
        for each in self.outbox.commands.kept:
            if each.outcome == UNKNOWN:
                assert each.id not in self.done
                self.answered.add(each.id)

    def check(self):
        assert len(self.given) == len(set(self.given)), "an id was handed over twice"
        assert self.given == sorted(self.given), "the order was lost"
        assert not set(self.waiting) & set(self.given)
        self.outbox.close()

"""The lane's promises, checked against a model of JetStream that fails in every way it can."""

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stream.lanes import ahead
from gateway.stream.lanes.batch import Answer, Kind, Strategy, Verdict, split_all
from support.lanes import STORED, TIMEOUT, WINDOW_S, Owner, make, named, pending, run


class JetStream:
    """A model: what is stored, what is a duplicate, and how each kind of batch is answered.

    It remembers ids for `WINDOW_S` of `now`. What got no answer may arrive later.
    """

    def __init__(self, rng, fault_rate, batch_max):
        self.now = 0.0
        self.stored = []
        self.known_until = {}
        self.late = []
        self.rng = rng
        self.fault_rate = fault_rate
        self.batch_max = batch_max

    def answer_all(self, lane):
        settled = []
        while len(lane):
            if lane.in_flight is None:
                lane.next_batch(self.now)
            settled += named(self.answer_questions(lane))
            if lane.in_flight is not None:
                settled += named(self.answer(lane))
        return settled

    def put(self, item):
        if self.knows(item):
            return Verdict.DUPLICATE
        key = (item.owner.device, item.seq)
        self.stored.append(key)
        self.known_until[key] = self.now + WINDOW_S
        return Verdict.STORED

    def knows(self, item):
        return self.known_until.get((item.owner.device, item.seq), -1.0) >= self.now

    def answer_questions(self, lane):
        """Nobody else stores here, so what is under an id is always the same message."""
        settled = []
        for question in lane.take_questions():
            device = question.items[0].owner.device
            if question.stored_at is not None:
                settled += lane.compared(question, same=True)
            else:
                last = max((seq for name, seq in self.stored if name == device), default=0)
                settled += lane.found(question, last, self.now)
        return settled

    def fails(self):
        return self.rng.random() < self.fault_rate

    def answer(self, lane):
        """Carry out the batch in flight, failing before, in the middle of or after it."""
        batch = lane.in_flight
        if self.late and self.rng.random() < 0.5:
            sent_at, late = self.late.pop(0)
            if self.now - sent_at < WINDOW_S / 2:
                self.carry_out(late)
        if self.fails():
            if self.rng.random() < 0.3:
                self.late.append((self.now, dataclasses.replace(batch, answers={})))
            refused = Answer(Verdict.THROTTLED, "limits")
            no_answer = refused if self.rng.random() < 0.3 else TIMEOUT
            if batch.answered_one_by_one:
                return lane.finish_round(no_answer)
            return lane.resolve(no_answer)
        if batch.answered_one_by_one:
            return self.answer_round(lane, batch)
        answer = self.carry_out(batch)
        return lane.resolve(TIMEOUT if self.fails() else answer)

    def answer_round(self, lane, batch):
        for place, item in enumerate(batch.items):
            if self.fails():
                continue  # lost on the way there
            answer = Answer(self.put(item))
            if self.fails():
                continue  # lost on the way back
            settled = lane.resolve_one(place, answer)
            if settled is not None:
                return settled
        return lane.finish_round(TIMEOUT)

    def carry_out(self, batch):
        if batch.kind is Kind.ROUND:
            self.put_all(batch.items)
            return None
        if batch.kind is Kind.SINGLE:
            return Answer(self.put(batch.items[0]))
        return self.atomic(batch) if batch.kind is Kind.ATOMIC else self.fast(batch)

    def put_all(self, items):
        for item in items:
            self.put(item)

    def atomic(self, batch):
        items = batch.items
        if batch.sent and self.fails():
            return Answer(Verdict.PARTIAL, "partial")  # what was sent ahead is gone
        if len(items) > self.batch_max:
            return Answer(Verdict.TOO_LARGE, "batch_size", messages_max=self.batch_max)
        if any(self.knows(item) for item in items):
            return Answer(Verdict.PARTIAL, "partial")
        self.put_all(items)
        return STORED

    def fast(self, batch):
        for count, item in enumerate(split_all(batch.items)):
            cut = self.fails()
            if cut or self.put(item) is Verdict.DUPLICATE:
                return Answer(Verdict.PARTIAL, "partial", count)
        return STORED


def submit_some(lane, owners, submitted, rng, now):
    for _ in range(rng.randrange(4)):
        owner = rng.choice(owners)
        first = 1 + sum(each[0] == owner.device for each in submitted)
        last = first + (rng.randrange(4) if lane.strategy is Strategy.LINKED else 0)
        submitted += [(owner.device, seq) for seq in range(first, last + 1)]
        if last > first:
            lane.submit_run(run(owner, first, last, absent_at=now))
        else:
            lane.submit([pending(owner, first, absent_at=now)])


def stage_now_and_then(lane, rng, fault_rate, now):
    if rng.random() < 0.5:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ahead, "EAGER_MESSAGES", 1)
            lane.send_ahead(now)
    if rng.random() < fault_rate / 4:
        lane.take_back()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(Strategy),
    st.integers(0, 2**32),
    st.floats(0, 0.6),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.floats(0, 3 * WINDOW_S),
)
def test_each_message_is_stored_once_in_order_and_settled_once_in_order(
    strategy, seed, fault_rate, batch_max, server_batch_max, devices, outage_s
):
    rng = random.Random(seed)
    lane = make(strategy, messages=batch_max)
    jetstream = JetStream(rng, fault_rate, server_batch_max)
    owners = [Owner(f"d{n}") for n in range(devices)]
    submitted, settled = [], []
    now = 0.0
    for step in range(120):
        # What is in flight is read by the server, or lost, within the window's other half.
        now += rng.choice([0.0, 0.1, 1.0] + [outage_s] * (lane.in_flight is None))
        jetstream.now = now
        if step < 60:
            submit_some(lane, owners, submitted, rng, now)
        elif step == 100:
            jetstream.fault_rate = 0.0
        if lane.in_flight is None:
            lane.next_batch(now)
        stage_now_and_then(lane, rng, fault_rate, now)
        if rng.random() < 0.5:
            settled += named(jetstream.answer_questions(lane))
        if lane.in_flight is not None and rng.random() < 0.8:
            settled += named(jetstream.answer(lane))
            lane.strategy = rng.choice([strategy, lane.strategy])
    settled += jetstream.answer_all(lane)
    assert max(Counter(jetstream.stored).values(), default=1) == 1
    assert sorted(jetstream.stored) == sorted(submitted)
    assert sorted(settled) == sorted(submitted)
    for owner in owners:
        for order in (jetstream.stored, settled):
            mine = [seq for device, seq in order if device == owner.device]
            assert mine == sorted(mine)

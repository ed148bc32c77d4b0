"""Asks the stream what a lane wants to know, while the lane goes on with other devices."""

from collections.abc import Callable

import structlog

from gateway import tasks
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.questions import Question
from gateway.stream.lanes.settlements import Settlements
from gateway.stream.lanes.stored import StoredSeqs

_log = structlog.get_logger(__name__)


class Inquirer:
    """The questions of one lane."""

    __slots__ = ("_answered", "_clock", "_crew", "_lane", "_name", "_settlements", "_stored")

    def __init__(
        self,
        lane: Lane,
        name: str,
        *,
        stored: StoredSeqs,
        settlements: Settlements,
        crew: tasks.Crew,
        clock: Callable[[], float],
        answered: Callable[[], None],
    ) -> None:
        """
        Args:
            lane: has the questions.
            name: of the lane, for logs.
            stored: asks the streams.
            settlements: hears what is stored already.
            crew: owns the tasks that ask.
            clock: monotonic seconds.
            answered: called after each answer: the lane may have messages to send.
        """
        self._lane = lane
        self._name = name
        self._stored = stored
        self._settlements = settlements
        self._crew = crew
        self._clock = clock
        self._answered = answered

    def ask(self) -> int:
        """Have the new questions of the lane answered.

        Returns:
            How many of them compare a message.
        """
        compared = 0
        for question in self._lane.take_questions():
            if question.stored_at is None:
                self._crew.start(self._look_up(question), "look-up")
            else:
                compared += 1
                self._crew.start(self._compare(question, question.stored_at), "compare")
        return compared

    async def _look_up(self, question: Question) -> None:
        """Ask how much of an outbox is stored that was in doubt for too long."""
        began = self._clock()
        seq, asked_at = await self._stored.last_seq(*question.items[0].standing.key)
        waiting, device = len(question.items), question.device
        settled = self._lane.found(question, seq, asked_at)
        found = len(settled)
        _log.info(
            "publish_looked_up", lane=self._name, device=device, messages=waiting, found=found
        )
        if waiting > found:
            self._settlements.absent(waiting - found)
        if settled:
            self._settlements.found("lookup", settled, 0, self._clock() - began)
        self._answered()

    async def _compare(self, question: Question, sequence: int) -> None:
        """Ask whether a duplicate that this node did not publish is the message that is stored."""
        began = self._clock()
        first = question.items[0]
        same = await self._stored.same(first.envelope, sequence)
        settled = self._lane.compared(question, same=same)
        if same:
            self._settlements.found("round", settled, 1, self._clock() - began)
        else:
            _log.warning("seq_reused", device=question.device, seq=first.seq, stored_at=sequence)
        self._answered()

"""The questions to the process of a worker that wait for an answer."""

import asyncio
import itertools
from typing import Any, Final

from gateway.supervisor.worker_client import WorkerSilent

ANSWER_S: Final = 3.0
"""How long an answer may take."""

Snapshot = dict[str, Any]


class Looks:
    """The questions to one process, by their numbers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Snapshot | None]] = {}

    def ask(self) -> int:
        """The number of a new question."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        return number

    def answered(self, number: int, snapshot: Snapshot | None) -> None:
        """The answer to that question has come. One that came too late is dropped."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(snapshot)

    async def answer(self, number: int) -> Snapshot | None:
        """Wait for the answer to a question.

        Returns:
            The snapshot; None if the worker could take none, which its log explains.

        Raises:
            WorkerSilent: there is no answer in time.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._waiting[number]
        except TimeoutError:
            raise WorkerSilent(f"no snapshot within {ANSWER_S:g} s") from None
        finally:
            del self._waiting[number]

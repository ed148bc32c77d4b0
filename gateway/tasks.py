"""Background tasks with an owner: the part that starts a task ends it and hears of its failure.

A leaf that any shell may import. `asyncio.TaskGroup` is no substitute: it waits for ever for a task
that swallows its cancellation, as nats-py can (`Client._flush_pending`, `Client._close`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

_log = structlog.get_logger(__name__)

_AGAIN_S: Final = 0.25
"""A task that swallowed its cancellation is cancelled again after this."""

_GIVE_UP_S: Final = 5.0
"""A task that has not ended by then is left behind and named in the log."""


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel `tasks` until they have ended, for at most 5 s. The owners hear of their failures.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile. It hears of that only now,
            because otherwise nobody would own the tasks that have not ended yet.
    """
    pending = {task for task in tasks if task is not None and not task.done()}
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _GIVE_UP_S
    cancelled: asyncio.CancelledError | None = None
    while pending and loop.time() < give_up_at:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=_AGAIN_S)
        except asyncio.CancelledError as exc:
            cancelled = exc
        pending = {task for task in pending if not task.done()}
    for task in pending:
        _log.error("task_does_not_end", task=task.get_name(), after_s=_GIVE_UP_S)
    if cancelled is not None:
        raise cancelled


async def bounded(work: Coroutine[Any, Any, None], name: str, limit_s: float) -> bool:
    """Run one step of a stop for at most `limit_s`, even if it swallows its cancellation.

    Returns:
        Whether the step finished. If not, it is cancelled, and named in the log.

    Raises:
        Exception: what `work` raised.
    """
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.wait({task}, timeout=limit_s)
    finally:
        finished = task.done()
        if not finished:
            await end(task)
    if not finished:
        _log.error("stop_step_took_too_long", step=name, limit_s=limit_s)
        return False
    if not task.cancelled():
        task.result()
    return True


class Crew:
    """The background tasks of one part."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        """
        Args:
            on_failure: called with the exception that ended a task, once for each task.
        """
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` in the background until it ends or `close` ends it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """End all tasks, for at most 5 s."""
        await end(*self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None:
            _log.error("task_failed", task=task.get_name(), error=repr(failure))
            self._on_failure(failure)


async def repeat(
    step: Callable[[], Coroutine[Any, Any, None]],
    *,
    wait_s: Callable[[int], float],
    failures: type[Exception] | tuple[type[Exception], ...],
    on_failure: Callable[[Exception, int], None],
) -> None:
    """Take a step until it succeeds, with a wait before each attempt.

    Args:
        step: is taken.
        wait_s: how long to wait, after so many failures; with jitter.
        failures: what a step may raise. Anything else ends this.
        on_failure: is told of each failure, and how many there were.
    """
    failed = 0
    while True:
        await asyncio.sleep(wait_s(failed))
        try:
            await step()
        except failures as exc:
            failed += 1
            on_failure(exc, failed)
        else:
            return

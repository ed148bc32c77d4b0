"""Doing something at each await of a coroutine in turn: how a stop is tested in every state."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from functools import partial
from typing import Any


class Suspensions:
    """Wraps a coroutine, and calls `hook` when it is suspended for the n-th time (from 0)."""

    def __init__(self, work: Awaitable[Any], at: int, hook: Callable[[], Any]) -> None:
        self._work = work
        self._left = at
        self._hook = hook

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        step: Callable[[], Any] = partial(next, inner)
        while True:
            try:
                waited_for = step()
            except StopIteration as stop:
                return stop.value
            if self._left == 0:
                asyncio.get_running_loop().call_soon(self._hook)
            self._left -= 1
            try:
                yield waited_for
                step = partial(next, inner)
            # A cancellation, or what the awaited future has raised: it is thrown where that waits.
            except BaseException as exc:  # noqa: BLE001
                step = partial(inner.throw, exc)


def hooked(method: Callable[..., Any], at: int, hook: Callable[[], Any]) -> Callable[..., Any]:
    """`method`, an `async def`, with `hook` called at its n-th suspension."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await Suspensions(method(*args, **kwargs), at, hook)

    return wrapper


@contextlib.contextmanager
def hooked_task(name: str, at: int, hook: Callable[[], Any]) -> Iterator[None]:
    """For tasks of that name that start meanwhile: `hook` is called at their n-th suspension."""

    async def wrapper(work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        # A task has its name only once it runs.
        return await (Suspensions(work, at, hook) if task.get_name() == name else work)

    def factory(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(wrapper(work), loop=loop, **options)
        task.add_done_callback(lambda _task: work.close())  # in case it never ran
        return task

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)  # type: ignore[arg-type]  # typeshed wants any awaitable
    try:
        yield
    finally:
        loop.set_task_factory(None)


def others() -> set[asyncio.Task[Any]]:
    """All tasks but the present one."""
    return asyncio.all_tasks() - {asyncio.current_task()}

"""Doing something at each await of a coroutine in turn: how a stop is tested in every state."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
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
            except asyncio.CancelledError as exc:  # to be thrown where it waits
                step = partial(inner.throw, exc)


def hooked(method: Callable[..., Any], at: int, hook: Callable[[], Any]) -> Callable[..., Any]:
    """`method`, an `async def`, with `hook` called at its n-th suspension."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await Suspensions(method(*args, **kwargs), at, hook)

    return wrapper


def others() -> set[asyncio.Task[Any]]:
    """All tasks but the present one."""
    return asyncio.all_tasks() - {asyncio.current_task()}

"""An executor without a thread: what a test does is in the same order in every run."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class InlineExecutor(Executor):
    """Runs each job at once, in the thread that submits it."""

    def submit(self, job: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(job(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001  # as any executor: the future carries it
            future.set_exception(exc)
        return future

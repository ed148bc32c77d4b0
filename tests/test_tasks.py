"""Tasks with an owner: it hears of failures, and a swallowed cancellation is repeated."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway import tasks
from gateway.tasks import Crew, bounded, end
from support.waiting import eventually, within


async def forever():
    await asyncio.Event().wait()


async def deaf(times):
    """Swallows its first cancellations, as nats-py does."""
    while times:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
    await asyncio.Event().wait()


async def test_a_failure_is_heard_once_and_the_others_go_on():
    heard = []
    crew = Crew(heard.append)
    failure = ValueError("broken")

    async def fails():
        raise failure

    other = crew.start(forever(), "other")
    crew.start(fails(), "fails")
    with capture_logs() as logs:
        await eventually(lambda: heard)
    assert heard == [failure]
    assert [(line["event"], line["task"]) for line in logs] == [("task_failed", "fails")]
    assert not other.done()
    assert len(crew) == 1
    await crew.close()
    assert other.cancelled()
    assert heard == [failure]
    assert len(crew) == 0


async def test_a_swallowed_cancellation_is_sent_again(monkeypatch):
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.001)
    task = asyncio.create_task(deaf(3))
    await asyncio.sleep(0)
    await within(end(task, None))
    assert task.cancelled()


async def test_an_owner_that_is_cancelled_again_still_ends_what_it_owns(monkeypatch):
    """The owner of the owner repeats its cancellation too, and a moment earlier."""
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.001)
    owned = asyncio.create_task(deaf(3))

    async def owner():
        try:
            await forever()
        finally:
            await end(owned)

    owning = asyncio.create_task(owner())
    await asyncio.sleep(0)
    await within(end(owning))
    assert owning.cancelled()
    assert owned.cancelled()


async def test_a_task_that_never_ends_is_left_behind_and_named(monkeypatch):
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.001)
    monkeypatch.setattr(tasks, "_GIVE_UP_S", 0.02)
    task = asyncio.create_task(deaf(10**9), name="deaf")
    await asyncio.sleep(0)
    with capture_logs() as logs:
        await within(end(task))
    assert [(line["event"], line["task"]) for line in logs] == [("task_does_not_end", "deaf")]
    assert not task.done()
    task.get_coro().close()


async def test_a_step_is_bounded_and_its_failure_raised(monkeypatch):
    with capture_logs() as logs:
        assert not await within(bounded(forever(), "endless", 0.001))
    assert [line["step"] for line in logs] == ["endless"]

    async def quick():
        pass

    async def fails():
        raise OSError("disk")

    assert await bounded(quick(), "quick", 5)
    with pytest.raises(OSError, match="disk"):
        await bounded(fails(), "fails", 5)


async def test_a_step_whose_owner_is_cancelled_ends_too():
    began = asyncio.Event()
    seen = []

    async def step():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    owner = asyncio.create_task(bounded(step(), "step", 1_000))
    await began.wait()
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert seen == ["ended"]


async def test_a_step_is_repeated_after_the_failures_that_are_named_and_no_other():
    outcomes, told, waits = [OSError("full"), ValueError("no"), None], [], []

    async def step():
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    def wait_s(failures):
        waits.append(failures)
        return 0

    def repeat(failures):
        return tasks.repeat(
            step,
            wait_s=wait_s,
            failures=failures,
            on_failure=lambda _exc, count: told.append(count),
        )

    with pytest.raises(ValueError, match="no"):
        await repeat(OSError)
    assert (told, waits) == ([1], [0, 1])
    await repeat((OSError, ValueError))
    assert outcomes == []

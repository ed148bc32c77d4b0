"""What every process needs: an end with its cause, parts in order, work in the background."""

import asyncio
import os
import signal

import pytest

from gateway.process import Assembly, Background, Ending, Part, nothing, serve, signal_handlers
from support.waiting import eventually, within


class Recorder:
    """Makes parts that record their start and stop, and can fail or hang in either."""

    def __init__(self):
        self.seen = []

    def part(self, name, *, fails_in=(), hangs_in=(), stop_within_s=10.0):
        async def step(what):
            self.seen.append(f"{name} {what}")
            if what in fails_in:
                raise ValueError(f"{name} {what}")
            if what in hangs_in:
                await asyncio.Event().wait()

        return Part(name, lambda: step("start"), lambda: step("stop"), stop_within_s)


async def test_parts_stop_in_the_reverse_order():
    made = Recorder()
    assembly = Assembly([made.part("a"), made.part("b")])
    await assembly.start()
    await assembly.stop()
    assert made.seen == ["a start", "b start", "b stop", "a stop"]


async def test_a_part_may_start_and_stop_without_waiting():
    seen = []
    assembly = Assembly([Part("a", lambda: seen.append("start"), nothing)])
    await assembly.start()
    await assembly.stop()
    assert seen == ["start"]


async def test_a_part_that_does_not_start_is_stopped_and_those_after_it_never_begin():
    made = Recorder()
    assembly = Assembly([made.part("a"), made.part("b", fails_in=["start"]), made.part("c")])
    with pytest.raises(ValueError, match="b start"):
        await assembly.start()
    await assembly.stop()
    assert made.seen == ["a start", "b start", "b stop", "a stop"]


async def test_a_part_that_does_not_stop_is_cut_and_the_others_are_stopped():
    made = Recorder()
    hanging = made.part("b", hangs_in=["stop"], stop_within_s=0.01)
    assembly = Assembly([made.part("a"), hanging, made.part("c", fails_in=["stop"])])
    await assembly.start()
    with pytest.raises(ValueError, match="c stop"):
        await within(assembly.stop())
    assert made.seen[3:] == ["c stop", "b stop", "a stop"]


async def test_a_step_is_cut_short_when_the_process_must_end():
    ending = Ending()
    step = asyncio.create_task(ending.unless_asked(asyncio.Event().wait(), "step"))
    ending.fail(ValueError("broken"))
    assert not await within(step)
    assert ending.asked
    with pytest.raises(ValueError, match="broken"):
        ending.raise_failure()


async def test_a_step_that_finishes_or_fails_says_so():
    async def fails():
        raise ValueError("broken")

    ending = Ending()
    assert await ending.unless_asked(asyncio.sleep(0), "step")
    with pytest.raises(ValueError, match="broken"):
        await ending.unless_asked(fails(), "step")
    ending.raise_failure()  # the failure of a step is not one of the process


async def test_a_failure_that_is_noted_does_not_end_the_process():
    ending = Ending()
    ending.note(ValueError("first"))
    ending.note(ValueError("second"))
    assert not ending.asked
    assert [str(failure) for failure in ending.failures] == ["first", "second"]


async def test_work_in_the_background_fails_aloud_and_ends():
    failures = []

    class Worker:
        def work(self):
            yield "waits", asyncio.Event().wait()

    async def fails():
        raise ValueError("broken")

    background = Background([Worker(), Worker()], on_failure=failures.append)
    background.start()
    background.add(fails(), "fails")
    await eventually(lambda: failures)
    assert len(background) == 2
    await background.stop()
    assert len(background) == 0
    assert [str(failure) for failure in failures] == ["broken"]


async def test_signals_are_handled_within_the_context_only():
    came = asyncio.Event()
    before = signal.getsignal(signal.SIGUSR2)
    with signal_handlers({signal.SIGUSR2: came.set}):
        os.kill(os.getpid(), signal.SIGUSR2)
        await within(came.wait())
    assert signal.getsignal(signal.SIGUSR2) == before


@pytest.mark.parametrize("way", ["signal", "failure"])
async def test_a_process_serves_until_it_must_end(way):
    made, ending, started = Recorder(), Ending(), asyncio.Event()
    serving = asyncio.create_task(serve(Assembly([made.part("a")]), ending, on_started=started.set))
    await within(started.wait())
    if way == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
        await within(serving)
    else:
        ending.fail(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await within(serving)
    assert made.seen == ["a start", "a stop"]

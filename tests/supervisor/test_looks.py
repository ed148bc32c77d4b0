"""Questions to the process of a worker, and their answers."""

import asyncio
import contextlib
import socket

import pytest
from structlog.testing import capture_logs

from gateway.supervisor import looks as looks_module
from gateway.supervisor.looks import Looks
from gateway.supervisor.messages import Look, Seen, line_of, parse_to_supervisor
from gateway.supervisor.supervisor_link import SupervisorLink
from gateway.supervisor.worker_client import WorkerSilent


async def test_each_question_gets_its_own_answer():
    looks = Looks()
    first, second = looks.ask(), looks.ask()
    looks.answered(second, {"of": 2})
    looks.answered(first, {"of": 1})
    assert await looks.answer(first) == {"of": 1}
    assert await looks.answer(second) == {"of": 2}


async def test_no_answer_in_time_is_silence_and_a_late_one_is_dropped(monkeypatch):
    monkeypatch.setattr(looks_module, "ANSWER_S", 0.0)
    looks = Looks()
    number = looks.ask()
    with pytest.raises(WorkerSilent):
        await looks.answer(number)
    looks.answered(number, {})
    again = looks.ask()
    looks.answered(again, {"of": 1})
    assert again != number
    assert await looks.answer(again) == {"of": 1}


def broken():
    raise RuntimeError("a part is broken")


@contextlib.asynccontextmanager
async def asked(snapshot):
    """A worker's side of a socket pair, and the supervisor's reader and writer."""
    ours, theirs = socket.socketpair()
    link = await SupervisorLink.of(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    running = asyncio.create_task(link.run(lambda _now: None, snapshot))
    try:
        yield reader, writer
    finally:
        writer.close()
        await running
        await link.close()


async def test_a_worker_answers_with_its_snapshot():
    async with asked(lambda: {"at": 1.5, "refused": [("full", 2)]}) as (reader, writer):
        writer.write(line_of(Look(7)))
        answer = parse_to_supervisor(await reader.readline())
    assert answer == Seen(7, {"at": 1.5, "refused": [["full", 2]]})


async def test_a_worker_that_can_take_no_snapshot_answers_all_the_same():
    with capture_logs() as logged:
        async with asked(broken) as (reader, writer):
            writer.write(line_of(Look(7)))
            answer = parse_to_supervisor(await reader.readline())
    assert answer == Seen(7, None)
    assert [entry["event"] for entry in logged] == ["snapshot_failed", "supervisor_gone"]

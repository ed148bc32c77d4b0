"""A child ends with its parent, and when it is told to, whatever it does."""

import asyncio
import contextlib
import signal
import sys

import pytest
from structlog.testing import capture_logs

from gateway.child_processes import end
from support.children import alive, spawned
from support.waiting import eventually, within

PATIENT_S = 30.0
_STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""
_OBEDIENT = """
import signal
print("ready", flush=True)
signal.pause()
"""
_PARENT = """
import signal, subprocess, sys
from gateway.child_processes import dying_with_parent
child = subprocess.Popen(
    [sys.executable, "-c", "import signal; signal.pause()"],
    preexec_fn=dying_with_parent(signal.SIGKILL),
)
print(child.pid, flush=True)
signal.pause()
"""


@contextlib.asynccontextmanager
async def child(program):
    """A Python process that has said that it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await within(process.stdout.readline()) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_child_ends_when_it_is_told_to():
    async with child(_OBEDIENT) as process:
        await end(process, "child", PATIENT_S)
        assert process.returncode == -signal.SIGTERM


async def test_a_stopped_child_ends_too():
    async with child(_OBEDIENT) as process:
        process.send_signal(signal.SIGSTOP)
        await end(process, "child", PATIENT_S)
        assert process.returncode == -signal.SIGTERM


async def test_a_child_that_ignores_it_is_killed_and_the_log_says_so():
    async with child(_STUBBORN) as process:
        with capture_logs() as log:
            await end(process, "stubborn", 0.01)
        assert process.returncode == -signal.SIGKILL
        (line,) = log
        assert line["event"] == "child_killed"
        assert (line["name"], line["pid"]) == ("stubborn", process.pid)


async def test_nothing_is_sent_to_a_child_that_has_ended():
    async with child(_OBEDIENT) as process:
        process.kill()
        await process.wait()
        await end(process, "child", PATIENT_S)
        assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of this")
async def test_a_child_ends_with_its_parent():
    with spawned([sys.executable, "-c", _PARENT]) as parent:
        pid = int(parent.stdout.readline())
    await eventually(lambda: not alive(pid), "the end of the child")

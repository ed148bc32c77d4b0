"""A command ends on one signal, even if its work swallows the cancellation."""

import signal
import subprocess
import sys

import pytest

from support.children import spawned

SCRIPT = """
import asyncio, sys, time
from gateway.commands import foreground

foreground.GRACE_S = 0.3

async def waits():
    print("ready", flush=True)
    await asyncio.sleep(600)

async def swallows():
    while True:
        try:
            await waits()
        except asyncio.CancelledError:
            pass

async def resolves():
    task = asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    print("ready", flush=True)
    await task

async def writes():
    print("ready", flush=True)
    while True:
        sys.stdout.buffer.write(b"x" * 65536)

async def blocks():
    print("ready", flush=True)
    time.sleep(600)

foreground.run(globals()[sys.argv[1]]())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["waits", "swallows", "resolves", "writes", "blocks"])
def test_one_signal_ends_it(work, number):
    with spawned([sys.executable, "-c", SCRIPT, work], stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert process.stderr.read() == ""


def test_its_result_and_its_error_are_the_works():
    script = """
from gateway.commands import foreground
async def three(): return 3
async def broken(): raise KeyError("x")
assert foreground.run(three()) == 3
try:
    foreground.run(broken())
except KeyError:
    print("raised")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("raised\n", "")

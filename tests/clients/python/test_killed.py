"""A device that is killed at any moment: no command is given twice, and the order is kept."""

import asyncio
import json
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from support.waiting import eventually, within
from tidegate.testing.peer import WELCOME

DEVICE = """
import asyncio, os, sys
from tidegate import BackoffSettings, Device

url, box, log = sys.argv[1:]
given = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def main():
    quick = BackoffSettings(first_retry_ms=5, base_ms=5, cap_ms=20)
    async with Device(url, "t", outbox=box, backoff=quick) as device:
        async for command in device.commands():
            os.write(given, command.id.encode() + b"\\n")
            await asyncio.sleep(0.001 * (int(command.id) % 3))
            await device.answer(command.id, ok=True, data=command.id)

# A line starts a device; the answers are its pid and its end. The device is a fork of this process,
# so no start imports anything again.
for _line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.close(0)
        asyncio.run(main())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""
COMMANDS = 150
KILLS = 12


class Queue:
    """The queue of one device: a command is sent again until it has a result, one at a time."""

    def __init__(self):
        self.outcomes = {}
        self.received = set()

    def next(self):
        return next((n for n in range(COMMANDS) if n not in self.outcomes), None)

    async def serve(self, connection):
        async def say(frame):
            await connection.send(json.dumps(frame))

        async def command():
            number = self.next()
            if number is not None:
                frame = {"id": str(number), "type": "t", "data": number, "queued": True}
                await say({"command": frame})

        welcomed = False
        try:
            async for text in connection:
                frame = json.loads(text)
                if "hello" in frame:
                    hello = frame["hello"]
                    resume = {"outbox": hello["outbox"], "seq": hello["oldest"] - 1}
                    if welcomed:
                        await say({"resume": resume, "credit": 10})
                        continue
                    welcomed = True
                    features = ["outboxes", "receipts"]
                    await say({"welcome": {**WELCOME, "features": features, "resume": resume}})
                    await command()
                elif "received" in frame:
                    self.received.add(int(frame["received"]))
                elif "result" in frame:
                    result = frame["result"]
                    number = int(result["id"])
                    known = self.outcomes.setdefault(number, result)
                    assert known == result, "a result never changes"
                    await say({"settled": result["id"]})
                    await command()
        except ConnectionClosed:
            pass


@asynccontextmanager
async def starter(url, directory):
    """The process that starts the devices."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DEVICE, url, str(directory / "box"), str(directory / "given")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        await within(process.wait())


@asynccontextmanager
async def device(starter):
    """A device that is killed at the end."""
    starter.stdin.write(b"\n")
    pid = int(await within(starter.stdout.readline()))
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        assert await within(starter.stdout.readline()) == b"ended\n"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_no_kill_gives_a_command_twice(tmp_path: Path, seed):
    rng = random.Random(seed)
    queue = Queue()
    async with serve(queue.serve, "127.0.0.1", 0, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/device"
        async with starter(url, tmp_path) as devices:
            for _ in range(KILLS):
                mark = len(queue.outcomes) + rng.randint(1, COMMANDS // KILLS)
                async with device(devices):
                    await eventually(lambda mark=mark: len(queue.outcomes) >= min(mark, COMMANDS))
                    for _ in range(rng.randint(0, 200)):
                        await asyncio.sleep(0)
            async with device(devices):
                await eventually(lambda: len(queue.outcomes) == COMMANDS)
    given = [int(line) for line in (tmp_path / "given").read_text().split()]
    assert len(given) == len(set(given)), "an id was given twice"
    assert given == sorted(given), "the order was lost"
    for number, result in queue.outcomes.items():
        if result["ok"]:
            assert result["data"] == str(number)
            assert number in given, "done, but it was never given"
        else:
            assert result["data"] == {"error": "unknown"}
    unknown = sum(not result["ok"] for result in queue.outcomes.values())
    assert unknown <= KILLS, "a kill makes at most one command unknown"
    assert set(given) | {n for n, each in queue.outcomes.items() if not each["ok"]} == set(
        range(COMMANDS)
    )

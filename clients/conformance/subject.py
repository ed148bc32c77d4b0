"""The client under test: a process that receives an order in each line.

On its standard input it reads JSON objects, one in each line:

    {"do": "send", "type": "t", "data": ..}      queue a message
    {"do": "credential", "token": ".."}          the answer to `credential`
    {"do": "stop"}                               end in order, with exit code 0

On its standard output it writes JSON objects, one in each line:

    {"event": "ready", "can": [..]}              its abilities; see README.md
    {"event": "credential"}                      it needs a credential: at its start, before one
                                                 expires, and after one was refused
    {"event": "queued"}                          a message is in its outbox (once for each `send`)
    {"event": "rejected", "error": ".."}         a message was given up
    {"event": "ended", "error": ".."}            it does not try to connect any more
    {"event": "state", "version": "..", "desired": {..}}   its application gets a state
    {"event": "command", "id": ".."}             its application gets a queued command
"""

import asyncio
import base64
import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import Any, Final

from clients.conformance.errors import Mismatch

_LINE_BYTES_MAX: Final = 1_048_576
_EXIT_S: Final = 15.0


class Subject:
    """One process of the client under test."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], credentials: Sequence[str]
    ) -> None:
        """
        Args:
            command: starts the client.
            environment: variables in addition to those of this process.
            credentials: the tokens that the client gets, one each time it asks; the last one is
                repeated.
        """
        self._command = command
        self._environment = environment
        self._credentials = list(credentials)
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0
        """How often the client asked for a credential."""
        self.can: frozenset[str] = frozenset()
        self._queued = asyncio.Semaphore(0)
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def start(self) -> None:
        """Start the client.

        Raises:
            Mismatch: the client does not start.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=os.environ | self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
        )
        self._reading = asyncio.create_task(self._read(), name="subject")
        ready = await self.next_event()
        if ready.get("event") != "ready":
            raise Mismatch(f"the first line of a client is ready, not {ready}")
        self.can = frozenset(ready.get("can", ()))

    async def _read(self) -> None:
        output = self._process.stdout
        assert output is not None
        async for line in output:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "noise", "line": line.decode(errors="replace")}
            if event.get("event") == "queued":
                self._queued.release()
            elif event.get("event") == "credential":
                place = min(self.asked, len(self._credentials) - 1)
                self.asked += 1
                await self.tell({"do": "credential", "token": self._credentials[place]})
            else:
                self.events.put_nowait(event)
        self.events.put_nowait({"event": "exit"})

    async def tell(self, order: dict[str, Any]) -> None:
        """Send an order. Does nothing if the client has ended."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(ConnectionError):
            pipe.write(json.dumps(order).encode() + b"\n")
            await pipe.drain()

    async def queued(self, count: int, within_s: float = 15.0) -> None:
        """Wait until so many messages are queued.

        Raises:
            Mismatch: they are not queued in time.
        """
        try:
            async with asyncio.timeout(within_s):
                for _ in range(count):
                    await self._queued.acquire()
        except TimeoutError:
            raise Mismatch("a message was not queued") from None

    async def next_event(self, within_s: float = 15.0) -> dict[str, Any]:
        """The next event.

        Raises:
            Mismatch: the client writes no event in time.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self.events.get()
        except TimeoutError:
            raise Mismatch(f"the client wrote no event for {within_s:.1f} s") from None

    async def stop(self) -> None:
        """End the client in order.

        Raises:
            Mismatch: the client does not end in order.
        """
        await self.tell({"do": "stop"})
        try:
            async with asyncio.timeout(_EXIT_S):
                code = await self._process.wait()
        except TimeoutError:
            raise Mismatch(f"the client did not end within {_EXIT_S:.0f} s of stop") from None
        if code != 0:
            raise Mismatch(f"the client ended with code {code}")

    async def kill(self) -> None:
        """End the client, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading
        if self._process.stdin is not None:
            self._process.stdin.close()


def mint(name: str, lifetime_s: float) -> str:
    """A token whose lifetime a client can read. Only the gateway of a script accepts it."""
    now = int(time.time())
    claims = {"sub": "veh-1", "jti": name, "iat": now, "exp": now + lifetime_s}
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"c2lnbmF0dXJl"]).decode()

"""A TCP connection to a name that may have several addresses, some of them dead (RFC 8305).

The addresses are tried in turn, alternating families, each one 250 ms after the one before or as
soon as that has failed. The first that connects is taken. uvloop does not have asyncio's own
version of this. A daemon thread of its own looks a name up, because a look-up that hangs must not
keep a process from ending.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from tidegate.clock import Clock

ATTEMPT_DELAY_S: Final = 0.25
"""RFC 8305, section 5: the recommended Connection Attempt Delay."""
_ADDRESSES_MAX: Final = 16


class Endpoint(NamedTuple):
    """An address as `getaddrinfo` returns it."""

    family: int
    address: tuple[Any, ...]


Resolve = Callable[[str, int], Awaitable[Sequence[Endpoint]]]
ConnectTo = Callable[[Endpoint], Awaitable[socket.socket]]


async def resolve(host: str, port: int) -> Sequence[Endpoint]:
    """Look a name up.

    Raises:
        OSError: the name has no address.
    """
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET  # noqa: PLR2004  # the IP version
        return [Endpoint(family, (host, port))]
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[Endpoint]] = loop.create_future()

    def deliver(endpoints: Sequence[Endpoint], problem: OSError | None) -> None:
        if found.done():
            return
        if problem is not None:
            found.set_exception(problem)
        else:
            found.set_result(endpoints)

    def look_up() -> None:
        endpoints: list[Endpoint] = []
        problem: OSError | None = None
        try:
            for family, _type, _proto, _name, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            ):
                endpoints.append(Endpoint(family, address))
        except OSError as exc:
            problem = OSError(f"the name {host} cannot be looked up: {exc.strerror or exc}")
        except UnicodeError as exc:
            problem = OSError(f"{host!r} is no name of a host: {exc}")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(deliver, endpoints, problem)

    threading.Thread(target=look_up, name="tidegate-resolve", daemon=True).start()
    return await found


async def connect_to(endpoint: Endpoint) -> socket.socket:
    """Connect.

    Raises:
        OSError: no connection was made.
    """
    made = socket.socket(endpoint.family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as undo:
        undo.callback(made.close)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, endpoint.address)
        undo.pop_all()  # connected: the caller owns it
    return made


def alternated(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Alternate the families, each in its own order; the first stays first (RFC 8305, section
    4).
    """
    by_family: dict[int, list[Endpoint]] = {}
    for endpoint in dict.fromkeys(endpoints):
        by_family.setdefault(endpoint.family, []).append(endpoint)
    rounds = itertools.zip_longest(*by_family.values())
    return [each for turn in rounds for each in turn if each is not None][:_ADDRESSES_MAX]


class Dialer:
    """Makes TCP connections."""

    def __init__(
        self, clock: Clock, resolve: Resolve = resolve, connect_to: ConnectTo = connect_to
    ) -> None:
        self._clock = clock
        self._resolve = resolve
        self._connect_to = connect_to

    async def dial(self, host: str, port: int) -> socket.socket:
        """
        Raises:
            OSError: no address of the name answers; the message has the reason of each.
        """
        waiting = deque(alternated(await self._resolve(host, port)))
        attempts: dict[asyncio.Task[socket.socket], Endpoint] = {}
        problems: list[str] = []
        won: socket.socket | None = None
        try:
            while waiting or attempts:
                if waiting:
                    endpoint = waiting.popleft()
                    attempts[asyncio.ensure_future(self._connect_to(endpoint))] = endpoint
                won = await self._first(attempts, problems, bool(waiting))
                if won is not None:
                    return won
        finally:
            await _drop(attempts, won)
        raise OSError("; ".join(problems) or f"the name {host} has no address")

    async def _first(
        self,
        attempts: dict[asyncio.Task[socket.socket], Endpoint],
        problems: list[str],
        more: bool,
    ) -> socket.socket | None:
        """Wait for a connection. None means that it is time for the next attempt."""
        pause = asyncio.ensure_future(self._clock.sleep(ATTEMPT_DELAY_S)) if more else None
        try:
            while attempts:
                awaited: set[asyncio.Future[Any]] = {*attempts}
                if pause is not None:
                    awaited.add(pause)
                done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                failed = False
                for attempt in [each for each in attempts if each in done]:
                    endpoint = attempts.pop(attempt)
                    problem = attempt.exception()
                    if problem is None:
                        return attempt.result()
                    if not isinstance(problem, OSError):
                        raise problem
                    failed = True
                    # asyncio's own message names the address and not the reason.
                    words = os.strerror(problem.errno) if problem.errno else str(problem)
                    problems.append(f"{endpoint.address[0]} port {endpoint.address[1]}: {words}")
                if (failed and more) or (pause is not None and pause in done):
                    return None
            return None
        finally:
            if pause is not None:
                pause.cancel()


async def _drop(
    attempts: dict[asyncio.Task[socket.socket], Endpoint], won: socket.socket | None
) -> None:
    """End the attempts that lost."""
    for attempt in attempts:
        attempt.cancel()
    for ended in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(ended, socket.socket) and ended is not won:
            ended.close()

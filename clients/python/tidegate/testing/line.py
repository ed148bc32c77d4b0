"""A connection in memory: two ends, each of which hears what the other says, in order."""

import asyncio
from collections.abc import Callable

from tidegate.connection import Closed
from tidegate.wire import frames


class _End:
    """One end. `heard` are the frames and the end that the other side has said."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self._heard: asyncio.Queue[bytes | Closed] = asyncio.Queue()

    def put(self, said: bytes | Closed) -> None:
        self._heard.put_nowait(said)

    async def receive(self) -> bytes:
        """The next frame.

        Raises:
            Closed: the connection has ended.
        """
        said = await self._heard.get()
        if isinstance(said, Closed):
            self._heard.put_nowait(said)  # for whoever asks again
            raise Closed(said.code, said.reason)
        return said

    async def send(self, frame: bytes) -> None:
        """Say a frame.

        Raises:
            Closed: the connection has ended.
        """
        self._line.say(self, frame)


class DeviceEnd(_End):
    """The device's end: a `tidegate.connection.Connection`."""

    async def close(self) -> None:
        self._line.end(Closed(frames.CLOSE_NORMAL))

    def abort(self) -> None:
        self._line.end(Closed())


class GatewayEnd(_End):
    """The gateway's end."""

    async def close(self, code: int, reason: str) -> None:
        self._line.end(Closed(code, reason))

    def cut(self) -> None:
        """Lose the connection without a close frame."""
        self._line.end(Closed())


class Line:
    """A connection and both its ends."""

    def __init__(self, stir: Callable[[], None]) -> None:
        """
        Args:
            stir: called whenever something is said.
        """
        self._stir = stir
        self.ended: Closed | None = None
        """How the connection ended, if it has."""
        self.device = DeviceEnd(self)
        self.gateway = GatewayEnd(self)

    def say(self, speaker: _End, frame: bytes) -> None:
        """
        Raises:
            Closed: the connection has ended.
        """
        if self.ended is not None:
            raise Closed(self.ended.code, self.ended.reason)
        listener = self.gateway if speaker is self.device else self.device
        listener.put(frame)
        self._stir()

    def end(self, how: Closed) -> None:
        """End the connection for both sides. What was said before is still heard."""
        if self.ended is None:
            self.ended = how
            self.device.put(how)
            self.gateway.put(how)
            self._stir()

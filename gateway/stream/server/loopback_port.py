"""The port on which the embedded server listens: a free one, kept for it while it starts again."""

import contextlib
import secrets
import socket
import sys
from typing import Final

_PORTS: Final = range(20_000, 32_768)
"""Below those that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`). Such a
connection could take the port before the server has bound it, or while the server starts again."""


class LoopbackPort:
    """A port on loopback.

    A free one is held by a socket that is bound and does not listen. Whoever looks for a free port
    cannot bind it then, whether the server runs or not; nats-server can, since it sets
    SO_REUSEADDR. Only Linux allows that: elsewhere the port is free at the moment, and no more.
    """

    def __init__(self, number: int) -> None:
        """
        Args:
            number: the port; 0 for a free one, which `hold` chooses.
        """
        self.number = number
        self._is_given = number != 0
        self._holder: socket.socket | None = None

    def hold(self) -> None:
        """Choose a free port, and hold it until `release`. A port that was given stays as it is."""
        while not self._is_given and self._holder is None:
            with contextlib.ExitStack() as unless_held:
                holder = unless_held.enter_context(socket.socket())
                self.number = secrets.choice(_PORTS)
                try:
                    holder.bind(("127.0.0.1", self.number))
                except OSError:
                    continue
                if sys.platform != "linux":
                    return
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                unless_held.pop_all()
                self._holder = holder

    def release(self) -> None:
        """Let others have it. The next `hold` chooses anew."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None

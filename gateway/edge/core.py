"""The `websockets` Sans-I/O core as a connection uses it, and what its failures are called."""

import logging
from collections.abc import Sequence
from typing import Final

from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from gateway.edge.context import ConnectionContext
from gateway.session.errors import close_reason

# One logger for all connections, quiet: the library logs two lines a connection at INFO, which in a
# storm is a storm of its own.
_websockets_log = logging.getLogger("tidegate.websockets")
_websockets_log.setLevel(logging.CRITICAL)

FRAMING_CAUSES: Final = {
    1006: "lost",
    1002: "framing",
    1007: "utf8",
    1009: "size",
    1011: "internal",
}
"""Close codes of the core, as metric labels."""


class Core(ServerProtocol):
    """The library's core, but for two things the contract and the conformance suite ask for."""

    def recv_frame(self, frame: Frame) -> None:
        """Take a close between fragments as the close it is (RFC 6455 section 5.5.1)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)

    def fail(self, code: int, reason: str = "") -> None:
        """Say why in the contract's JSON."""
        if not reason.startswith("{"):
            reason = close_reason(FRAMING_CAUSES.get(code, "framing"), reason)
        super().fail(code, reason)


def make_core(context: ConnectionContext, extensions: Sequence[Extension]) -> Core:
    """A fresh core for a connection whose handshake is done, bounded as the context says."""
    core = Core(
        state=OPEN,
        max_size=context.limits.frame_bytes_max,
        logger=_websockets_log,
    )
    core.extensions = list(extensions)
    return core


def release_core(core: Core) -> None:
    """End a core that is not used again, so that it goes when its last reference does.

    Its parser is a generator which refers to the core, and the error that stopped the parser refers
    to the parser's frame: two cycles, which only the collector would find.
    """
    core.parser.close()
    core.parser_exc = None

"""The `websockets` Sans-I/O core as a connection uses it, and the names of its failures."""

import logging
from collections.abc import Sequence
from typing import Final

from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from gateway.edge.connection.context import ConnectionContext
from gateway.session.errors import close_reason
from tidegate.wire import frames

# One quiet logger for all connections: the library logs two lines a connection at INFO, which are
# too many in a storm.
_websockets_log = logging.getLogger("tidegate.websockets")
_websockets_log.setLevel(logging.CRITICAL)

LOST: Final = frames.CLOSE_ABNORMAL
"""RFC 6455 section 7.1.5: the connection ended without a close frame."""
FRAMING_CAUSES: Final = {
    LOST: "lost",
    frames.CLOSE_PROTOCOL_ERROR: "framing",
    frames.CLOSE_INVALID_DATA: "utf8",
    frames.CLOSE_TOO_LARGE: "size",
    frames.CLOSE_INTERNAL: "internal",
}
"""Close codes of the core as metric labels."""


class Core(ServerProtocol):
    """The library's core with two changes that the contract and the conformance suite need."""

    def recv_frame(self, frame: Frame) -> None:
        """Let a close come between the fragments of a message (RFC 6455 section 5.5.1)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)

    def fail(self, code: int, reason: str = "") -> None:
        """Give the reason in the contract's JSON."""
        if not reason.startswith("{"):
            reason = close_reason(FRAMING_CAUSES.get(code, "framing"), reason)
        super().fail(code, reason)


def make_core(context: ConnectionContext, extensions: Sequence[Extension]) -> Core:
    """Make the core of a connection whose handshake is done, with the limits of the context."""
    core = Core(
        state=OPEN,
        max_size=context.limits.frame_bytes_max,
        logger=_websockets_log,
    )
    core.extensions = list(extensions)
    return core


def close_code(core: Core | None, *, by_peer: bool) -> int:
    """The code with which a connection was closed, by the peer or by us; 1006 without a close."""
    if core is None:
        return LOST
    close = core.close_rcvd if by_peer else core.close_sent
    return close.code if close is not None else LOST


def release_core(core: Core) -> None:
    """End a core that is not used again, so that its last reference frees it.

    Its parser is a generator that refers to the core, and the error that stopped the parser refers
    to the parser's frame. Only the cyclic collector would find these two cycles.
    """
    core.parser.close()
    core.parser_exc = None

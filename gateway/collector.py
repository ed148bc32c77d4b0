"""The cyclic collector, kept from stalling ten thousand connections.

CPython's collector visits what was made since its last pass, and now and then all that lives (`gc`,
"generations"). All that lives is half a second with a fleet connected; and the young alone, at a
threshold that spares us the old, are ten milliseconds in a storm, which is everybody's ack p99. We
make few cycles and break those of a connection when it is lost, so: small passes over the young,
after which the survivors are set aside (`gc.freeze`, which costs nothing) and never visited again.
What is set aside and dies by reference count dies as ever. What leaks into cycles all the same is
found by a full pass once in a long while.
"""

import asyncio
import gc
from typing import Any, Final

_YOUNG: Final = 2_000
"""Objects made beyond those gone, before a pass: about a millisecond's worth."""
_NEVER: Final = 1_000_000
_FULL_EVERY_S: Final = 86_400.0


class CalmCollector:
    """Owns the collector's settings for as long as it is started."""

    def __init__(self, *, full_every_s: float = _FULL_EVERY_S) -> None:
        """
        Args:
            full_every_s: between passes over everything.
        """
        self._full_every_s = full_every_s
        self._threshold = gc.get_threshold()

    def start(self) -> None:
        """From now on. Call it when what the process starts with has been made."""
        self.collect_all()
        gc.set_threshold(_YOUNG, _NEVER, _NEVER)
        gc.callbacks.append(_set_survivors_aside)

    def stop(self) -> None:
        """As it was before; nothing if it was not started."""
        if _set_survivors_aside not in gc.callbacks:
            return
        gc.callbacks.remove(_set_survivors_aside)
        gc.set_threshold(*self._threshold)
        gc.unfreeze()

    def collect_all(self) -> None:
        """Visit everything once, and set aside what lives."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    async def run(self) -> None:
        """A full pass now and then, as long as the node runs."""
        while True:
            await asyncio.sleep(self._full_every_s)
            self.collect_all()


def _set_survivors_aside(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 0:
        gc.freeze()

"""The command `tidegate`: the short way for what must be quick, else the tree of all commands.

Typer and the models of the settings take 0.2 s to import, nats-py and its asyncio 0.1 s. So this
module imports neither: it loads the tree when it needs it.
"""

import signal
import sys
from importlib import import_module
from types import ModuleType

from gateway.commands import short_way


def main() -> None:
    """Entry point of the `tidegate` command."""
    status = short_way.run(sys.argv[1:])
    if status is not None:
        sys.exit(status)
    _tree().app(prog_name="tidegate")


def _tree() -> ModuleType:
    """The tree. A Ctrl-C while it loads ends the process without a traceback."""
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    tree = import_module("gateway.commands.tree")
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)
    return tree

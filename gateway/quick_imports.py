"""Imports at the start of a process, without what would only make the start slower."""

import contextlib
import gc
import sys
from collections.abc import Iterable, Iterator
from typing import Final

TERMINAL: Final = ("rich",)
"""What structlog loads for tracebacks in colour: a tenth of a second, and our logs have none. Typer
loads it later, for a page of help."""


@contextlib.contextmanager
def without(packages: Iterable[str]) -> Iterator[None]:
    """For as long as the context lasts, these cannot be imported, unless they are already.

    What a module defines stays: the cyclic collector would look through it again and again.
    """
    absent = [package for package in packages if package not in sys.modules]
    for package in absent:
        sys.modules[package] = None  # type: ignore[assignment]  # as the import system has it
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for package in absent:
            del sys.modules[package]

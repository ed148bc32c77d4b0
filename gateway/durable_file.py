"""Small files that must outlive a power cut: they are synced first, and get their name then.

A file that is renamed before its bytes are on disk may be empty after a power cut.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by its owner only: all of it or, if interrupted, nothing.

    Raises:
        OSError: the disk refused; `path` has not changed.
    """
    with _aside(path, text) as aside:
        aside.replace(path)


def create(path: Path, text: str) -> None:
    """Write `text` to `path` unless the file exists: of two processes that start at once, one wins.

    Raises:
        OSError: the disk refused.
    """
    with _aside(path, text) as aside, contextlib.suppress(FileExistsError):
        os.link(aside, path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """For what writes `path`: an error of the disk names it. That of a full disk names no file."""
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


@contextlib.contextmanager
def _aside(path: Path, text: str) -> Iterator[Path]:
    """A synced file beside `path`, which the caller gives its name; the name is synced then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds secrets
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path):
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        yield aside
    finally:
        aside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

"""Starts `tidegate` by a fork of a process that has imported it: run as `python -P fork_server.py`.

A fresh interpreter imports for a second before the command does anything. A fork does not. Its
process is real otherwise: a pid of its own, a child of the process that asked for it, with the
arguments, environment, directory and standard streams that were asked for.

Standard input is a socket. A request is one JSON document with three descriptors; the answer is
the pid. The server ends when the other end of the socket is closed.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import signal
import socket
import sys
import time
from typing import Any

REQUEST_BYTES_MAX = 150_000


def preload() -> None:
    """Import what the commands import."""
    from gateway.commands.tree import COMMANDS

    for module in {each.module for each in COMMANDS.values()}:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a child must not write to the pages that it shares


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Answer requests. Returns in each child with its request, and in the server with None."""
    while True:
        text, streams, _flags, _address = socket.recv_fds(control, REQUEST_BYTES_MAX, 3)
        if not text:
            return None
        pid = _fork_twice()
        if pid == 0:
            control.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            request: dict[str, Any] = json.loads(text)
            return request
        for stream in streams:
            os.close(stream)
        control.send(str(pid).encode())


def _fork_twice() -> int:
    """The pid of a grandchild whose parent has ended; 0 in the grandchild.

    The kernel gives an orphan to the nearest ancestor that is a child subreaper, which the process
    that asks has made itself. The grandchild waits until its parent is gone.
    """
    read_pid, write_pid = os.pipe()
    read_start, write_start = os.pipe()
    parent = os.fork()
    if parent == 0:
        pid = os.fork()
        if pid != 0:
            os.write(write_pid, str(pid).encode())
            os._exit(0)
        for each in (read_pid, write_pid, write_start):
            os.close(each)
        if os.read(read_start, 1) != b"!":  # the server has died
            os._exit(1)
        os.close(read_start)
        return 0
    os.waitpid(parent, 0)
    pid = int(os.read(read_pid, 20))
    os.write(write_start, b"!")
    for each in (read_pid, write_pid, read_start, write_start):
        os.close(each)
    return pid


def become(request: dict[str, Any]) -> None:
    """Take on what an interpreter that is started takes from its parent."""
    if request["new_session"]:
        os.setsid()
    if request["directory"] is not None:
        os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = request["arguments"]
    sys.stdin = sys.__stdin__ = _stream(0, "strict")
    sys.stdout = sys.__stdout__ = _stream(1, "strict")
    sys.stderr = sys.__stderr__ = _stream(2, "backslashreplace")


def _stream(number: int, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
    buffered = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
    lines = number == 2 or raw.isatty()
    return io.TextIOWrapper(buffered, encoding="utf-8", errors=errors, line_buffering=lines)


def main() -> None:
    """Serve, and in each child run the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the server ends by its socket
    control = socket.socket(fileno=os.dup(0))
    preload()
    with contextlib.suppress(ConnectionError):
        control.send(b"ready")
        request = serve(control)
        if request is None:
            return
    become(request)
    from gateway.cli import main as tidegate

    tidegate()


if __name__ == "__main__":
    main()

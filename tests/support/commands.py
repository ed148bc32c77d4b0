"""`tidegate` as its user types it, started by `fork_server`."""

import atexit
import contextlib
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support.fork_server import REQUEST_BYTES_MAX

TIDEGATE = [sys.executable, "-P", "-m", "gateway"]
"""The command line of a fresh interpreter."""

_PR_SET_CHILD_SUBREAPER = 36
_PROGRAM = str(Path(__file__).parents[2] / "gateway" / "__main__.py")

_starting = threading.Lock()
_libc = ctypes.CDLL(None, use_errno=True)


def environment(**more: str) -> dict[str, str]:
    """The environment of the tests without settings of a gateway, and `more`."""
    return {n: v for n, v in os.environ.items() if not n.startswith("TIDEGATE_")} | more


class _ForkServer:
    """One for each process of the tests, from the first command on."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", Path(__file__).with_name("fork_server.py")],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
            )
        assert self._control.recv(16) == b"ready", "the fork server did not start"
        atexit.register(self.close)

    def fork(self, request: Mapping[str, Any], streams: tuple[int, int, int]) -> int:
        text = json.dumps(request).encode()
        assert len(text) < REQUEST_BYTES_MAX
        with self._asking, _subreaper():
            socket.send_fds(self._control, [text], streams)
            answer = self._control.recv(16)
        assert answer, "the fork server has ended"
        return int(answer)

    def close(self) -> None:
        self._control.close()
        self._process.wait(10)


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """Become the parent of processes below this one whose parent ends, for so long."""
    assert _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@functools.cache
def _only_fork_server() -> _ForkServer:
    return _ForkServer()


def _fork_server() -> _ForkServer:
    with _starting:
        return _only_fork_server()


class TidegateProcess(subprocess.Popen):
    """`tidegate` with these arguments, with the parameters of `Popen` that `fork_server` knows."""

    def __init__(self, *arguments: object, **more: Any) -> None:
        super().__init__([_PROGRAM, *map(str, arguments)], **more)

    def _execute_child(self, args, _executable, preexec_fn, _close_fds, pass_fds, cwd, env, *more):
        _startup, _flags, shell, *pipes = more[:9]
        _restore, gid, gids, uid, umask, start_new_session, process_group = more[9:]
        p2cread, _p2cwrite, _c2pread, c2pwrite, _errread, errwrite = pipes
        unknown = [preexec_fn, pass_fds, shell, gid, gids, uid, umask + 1, process_group + 1]
        assert not any(each for each in unknown if each is not None), "not of the fork server"
        request = {
            "arguments": args,
            "environment": dict(os.environ if env is None else env),
            "directory": None if cwd is None else os.fspath(cwd),
            "new_session": start_new_session,
        }
        given = (p2cread, c2pwrite, errwrite)
        streams = tuple(number if each == -1 else each for number, each in enumerate(given))
        self.pid = _fork_server().fork(request, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def tidegate(
    *arguments: object, stdin=None, cwd=None, within_s: float = 60, **more: str
) -> subprocess.CompletedProcess:
    """Run it to its end; `more` are variables of its environment."""
    return run_to_end(
        TidegateProcess(
            *arguments,
            stdin=None if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(**more, COLUMNS="200"),
        ),
        stdin,
        within_s,
    )


def run_to_end(
    process: subprocess.Popen, stdin: str | None = None, within_s: float = 60
) -> subprocess.CompletedProcess:
    """What `subprocess.run` does with a process that it starts."""
    with process:
        try:
            out, err = process.communicate(stdin, timeout=within_s)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@contextlib.contextmanager
def spawned_tidegate(*arguments: object, **more: Any) -> Iterator[subprocess.Popen]:
    """A process that no test outlives; `more` as for `Popen`."""
    options = {"stdout": subprocess.PIPE, "text": True, "env": environment(), **more}
    with TidegateProcess(*arguments, **options) as process:
        try:
            yield process
        finally:
            process.kill()

"""Run a command for at most so many seconds, and end whatever it leaves behind: SECONDS COMMAND...

The command's descendants become children of this process when their parents end (Linux: a "child
subreaper"), whatever sessions or process groups they made, so that none can stay behind unseen.
Exit status: the command's, or 124 if it took too long.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 15.0


def children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def reap() -> None:
    """Take the exit statuses of those that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_those_left() -> int:
    """Kill children until there are none; those of a killed one come to us."""
    ended = 0
    deadline = time.monotonic() + GRACE_S
    while (left := children()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                print(f"left behind: {pid} {b' '.join(words)[:200].decode()}", file=sys.stderr)
                os.kill(pid, signal.SIGKILL)
                ended += 1
        time.sleep(0.1)
        reap()
    return ended


def main() -> int:
    """Entry point."""
    limit_s, command = float(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        print("no subreaper here: what is left behind stays", file=sys.stderr)
    # Else a job in the background of a script hands on that it ignores SIGINT, by which pytest says
    # where it was, and which some tests send.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, start_new_session=True)

    def interrupt(number: int, _frame: object) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        end_those_left()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"not done in {limit_s:g} s: {' '.join(command)}", file=sys.stderr)
        os.killpg(process.pid, signal.SIGINT)  # pytest says where it was
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        status = 124
    end_those_left()
    return status if status >= 0 else 128 - status


sys.exit(main())

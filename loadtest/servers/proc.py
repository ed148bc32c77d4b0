"""What Linux says of processes: CPU time, memory, descendants."""

import contextlib
import time
from pathlib import Path

from loadtest.errors import TargetError

_CPUCLOCK_SCHED = 2
"""The clock of all CPU time of a process (`include/linux/posix-timers.h`)."""


def cpu_s(pid: int) -> float:
    """CPU time of a process and all its threads so far, in seconds, to the nanosecond.

    /proc/PID/stat counts in ticks of 10 ms, which is too coarse for a turn of half a second.

    Raises:
        TargetError: there is no such process.
    """
    # What clock_getcpuclockid(3) computes; Python does not offer that function.
    clock = ~pid << 3 | _CPUCLOCK_SCHED
    try:
        return time.clock_gettime(clock)
    except OSError:
        raise TargetError(f"process {pid} is gone") from None


def memory_bytes(pid: int) -> int:
    """Resident memory of a process.

    Raises:
        TargetError: there is no such process.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise TargetError(f"process {pid} is gone")


def command(pid: int) -> bytes:
    """The command line of a process, its words apart by NUL; empty if there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name of the process.

    Raises:
        OSError: there is no such process.
    """
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(root: int) -> list[int]:
    """The processes that `root` started, and the ones that those started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat_fields(int(path.name))[1]), []).append(int(path.name))
    found, left = [], [root]
    while left:
        begun = children.get(left.pop(), [])
        found += begun
        left += begun
    return found

"""What this machine lets one process hold: descriptors and local ports."""

import resource
from pathlib import Path
from typing import Final

from loadtest.errors import LimitError

_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORTS_SPARE: Final = 1.2
"""A port that was left a moment ago cannot be used again at once."""


def require_descriptors(count: int) -> None:
    """Let this process open so many descriptors.

    Raises:
        LimitError: this process may not open that many; with the command that allows it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise LimitError(
            f"{count:,} file descriptors are needed and {hard:,} are allowed: "
            f"ulimit -n {count} (as root: prlimit --pid $$ --nofile={count})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def take_all_descriptors() -> None:
    """Let this process open as many descriptors as it may."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_ports(devices: int, gateways: int) -> None:
    """Check that there are local ports for so many devices.

    Raises:
        LimitError: there are fewer; with the command that makes more.
    """
    if not _PORT_RANGE.exists():
        return
    first, last = map(int, _PORT_RANGE.read_text().split())
    # A local port can be used once for each address and port at the other end.
    if (last - first) * gateways < devices * _PORTS_SPARE:
        raise LimitError(
            f"{devices:,} devices need more local ports than {first}-{last}: "
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
        )

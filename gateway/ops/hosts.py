"""Which `Host` a request may name: the guard against DNS rebinding. Pure.

The owner of another site can make its name resolve to this port. To a browser, the pages of that
site then have the same origin as this port, so they may read and post. They cannot choose what the
browser writes in `Host`: it is the name of their site. So a name is refused unless the operator
configured it. An IP literal and `localhost` are always good, since they resolve to nothing else.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

_LOCAL: Final = "localhost"


class HostRule:
    """Judges the `Host` of a request."""

    def __init__(self, names: Iterable[str]) -> None:
        """
        Args:
            names: host names that are good, without a port, in any case.
        """
        self._names = frozenset(_plain(name) for name in (_LOCAL, *names))

    def allows(self, host: str) -> bool:
        """Whether `host`, the value of the header with or without a port, is good."""
        name = _without_port(host)
        if name is None:
            return False
        return _is_address(name) or _plain(name) in self._names


def _without_port(host: str) -> str | None:
    """The host of `host[:port]`, or None if it is neither."""
    name, colon, port = host.rpartition(":")
    if host.endswith("]") or not colon:
        return host
    return name if port.isascii() and (port.isdecimal() or not port) else None


def _plain(name: str) -> str:
    """DNS ignores case, and a final dot only says that the name is complete."""
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        if name.startswith("["):
            ipaddress.IPv6Address(name.removeprefix("[").removesuffix("]"))
        else:
            ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True

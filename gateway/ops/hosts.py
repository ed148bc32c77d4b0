"""Which `Host` a request may name: the guard against DNS rebinding. Pure.

A web page on another site can have its own name resolve to this port and is then, for a browser, of
the same origin: it may read and post. It cannot choose what the browser writes in `Host`, which is
the page's own name. So a name is refused unless the operator configured it. An IP literal and
`localhost` are always good, since nobody can make those resolve elsewhere.
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

"""Addresses of gateways: which text is one, and which of several is tried next. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from tidegate.errors import BadAddress


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a URL that a connection needs."""

    url: str
    host: str
    port: int
    secure: bool


def parse_address(url: str) -> Address:
    """Read a URL.

    Raises:
        BadAddress: not a `ws://` or `wss://` URL.
    """
    try:
        parts = urlsplit(url)
        has_user = parts.username is not None or parts.password is not None
        uri = None if has_user else parse_uri(url)
    except InvalidURI as exc:
        raise BadAddress(f"{url!r} is no address of a gateway: {exc.msg}") from None
    except (ValueError, TypeError, AttributeError) as exc:
        raise BadAddress(f"{url!r} is no address of a gateway: {exc}") from None
    if uri is None:  # the error does not repeat the URL, which may hold a password
        raise BadAddress("the address holds a user or a password; the credential is a JWT")
    return Address(url, uri.host, uri.port, uri.secure)


class UrlRing:
    """Which address is next. The one that answers is kept; silent ones are tried last."""

    def __init__(self, urls: str | Sequence[str], rng: random.Random) -> None:
        """
        Raises:
            BadAddress: one of `urls` is not an address, or `urls` is empty.
        """
        self.urls = [urls] if isinstance(urls, str) else list(urls)
        if not self.urls:
            raise BadAddress("no address of a gateway was given")
        for url in self.urls:
            parse_address(url)
        rng.shuffle(self.urls)
        self._dead: set[str] = set()
        self._pointless: set[str] = set()

    @property
    def current(self) -> str:
        """The address of the next attempt."""
        return self.urls[0]

    def lives(self) -> None:
        """A gateway answered at the current address: keep it."""
        self._dead.discard(self.current)
        self._pointless.clear()

    def lost(self) -> None:
        """No gateway answered at the current address: first try those that may answer."""
        self._dead.add(self.current)
        self._turn()

    def leave(self) -> None:
        """The gateway at the current address sends the device to another one."""
        self._dead.discard(self.current)
        self._turn()

    def pointless(self) -> bool:
        """A gateway says that the current address is not a device endpoint.

        Returns:
            Whether gateways have said so of all addresses.
        """
        self._pointless.add(self.current)
        self.lost()
        return self._pointless.issuperset(self.urls)

    def _turn(self) -> None:
        if self._dead.issuperset(self.urls):
            self._dead.clear()
        self.urls.append(self.urls.pop(0))
        while self.current in self._dead:
            self.urls.append(self.urls.pop(0))

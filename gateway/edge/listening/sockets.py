"""The listening sockets of one address: a listener binds them, or a supervisor for its workers."""

import asyncio
import socket


async def bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address of `host`.

    Args:
        host: a name or an address.
        port: for all of them; 0 for a free one.
        backlog: connections that the kernel keeps waiting for each.

    Raises:
        OSError: an address cannot be bound. Nothing is left open.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, address in dict.fromkeys(infos):
            listening = socket.socket(family, kind, protocol)
            bound.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            # All addresses of a host share the port that the first one was given.
            listening.bind((address[0], port, *address[2:]))
            port = port_of([listening])
            listening.listen(backlog)
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


def port_of(listening: list[socket.socket]) -> int:
    """The port that these sockets share."""
    port: int = listening[0].getsockname()[1]
    return port

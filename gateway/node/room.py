"""How many connections a node can hold, by its file descriptors."""

import structlog

from gateway.edge.listening import descriptors
from gateway.edge.listening.descriptors import Room
from gateway.settings import Server

_log = structlog.get_logger(__name__)


def find_room(server: Server) -> Room:
    """Have the descriptors that the settings need; if there are fewer, say so, and hold less."""
    wanted = descriptors.needed(server.connections_max, server.anonymous_max)
    limit = descriptors.raise_limit(wanted)
    room = descriptors.room_within(limit, server.connections_max, server.anonymous_max)
    if limit < wanted:
        _log.warning(
            "descriptors_short",
            needed=wanted,
            allowed=limit,
            connections_max=room.devices,
            anonymous_max=room.anonymous,
            hint=f"ulimit -Hn {wanted} (LimitNOFILE= of systemd), or set less in [server]",
        )
    return room

"""The configuration of the embedded nats-server: JetStream, and a user for each role. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.stream.server.rights import rights_of
from gateway.stream.server.roles import Role

_PAYLOAD_BYTES_MAX: Final = 8 * 1024 * 1024
_WRITE_DEADLINE: Final = "30s"
_STORE_BYTES_MAX: Final = 1 << 60
"""More than any disk holds, so that the disk is the bound, which the gateway watches.

Without it nats-server takes three quarters of what is free when it starts. Its streams would refuse
messages on a disk that has room, the more so after a restart on a disk that is half full, and room
that is made later would not count.
"""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the server is told. Passwords are hidden from repr."""

    name: str
    """Tells this server from another one that took its port."""
    fsync: bool
    """Sync every write before it is acknowledged (`sync_interval: always`)."""
    batch_messages_max: int
    """Messages of the largest atomic batch it must take."""
    rule_subjects: tuple[str, ...]
    """Where consumers may publish what rules derive."""
    passwords: Mapping[Role, str] = field(repr=False)

    def url(self, role: Role, port: int) -> str:
        """The address of the server, with the name and password of a user."""
        return f"nats://{role.value}:{self.passwords[role]}@127.0.0.1:{port}"

    def text(self, directory: Path, port: int) -> str:
        """The configuration file. JSON is a subset of the server's configuration language.

        Args:
            directory: JetStream's files; absolute.
            port: on loopback.
        """
        jetstream: dict[str, Any] = {
            "store_dir": str(directory),
            "max_file_store": _STORE_BYTES_MAX,
            "limits": {"batch": {"max_msgs": self.batch_messages_max}},
        }
        if self.fsync:
            jetstream["sync_interval"] = "always"
        users = [
            {
                "user": role.value,
                "password": self.passwords[role],
                "permissions": rights_of(role, self.rule_subjects).permissions(),
            }
            for role in Role
        ]
        return json.dumps(
            {
                "listen": f"127.0.0.1:{port}",
                "server_name": self.name,
                "jetstream": jetstream,
                "authorization": {"users": users},
                "max_payload": _PAYLOAD_BYTES_MAX,
                "write_deadline": _WRITE_DEADLINE,
            },
            indent=2,
        )

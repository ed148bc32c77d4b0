"""The schemas that messages of devices are checked against, read from their folder.

If the folder cannot be used at the start, the gateway does not start. If it cannot be used at a
reload (SIGHUP), the old schemas stay in force, and the reason is logged.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import structlog

from gateway.events.document import Schemas, read_events_file
from gateway.events.errors import SchemaError
from gateway.events.schemas import SchemaSet, compile_schemas
from gateway.session.intake import SchemaProblem
from gateway.stream.commands.chains import Mark

_log = structlog.get_logger(__name__)

_SAFE: Final = " $.,:;'`()[]{}<>=/-_"


def read_folder(section: Schemas) -> SchemaSet:
    """Compile the schemas that an events file names.

    Raises:
        SchemaError: the folder cannot be read, or a file in it cannot be used.
    """
    try:
        files = {path.name: path.read_bytes() for path in sorted(_json_files(section.folder))}
    except OSError as exc:
        raise SchemaError(f"schemas.folder {section.folder}: {exc.strerror}") from exc
    if not files:
        raise SchemaError(f"schemas.folder {section.folder} holds no *.json")
    return compile_schemas(files, section.unknown_type)


def _json_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == ".json"]


class SchemaCheck(Protocol):
    """What happens to messages that do not fit their schema."""

    @property
    def rejecting(self) -> SchemaProblem | None:
        """Judges each message, if what does not fit is rejected."""

    @property
    def marking(self) -> Mark | None:
        """Marks each message that does not fit, if it is stored all the same."""

    def reload(self) -> None:
        """Read the schemas again; if they cannot be used, the old ones stay in force."""


class NoSchemas:
    """The null form of `SchemaCheck`: every message fits."""

    rejecting: SchemaProblem | None = None
    marking: Mark | None = None

    def reload(self) -> None:
        pass


class SchemasInForce:
    """What the sessions of a node ask about the `data` of each message."""

    def __init__(self, section: Schemas, on_violation: Callable[[str], None]) -> None:
        """
        Args:
            section: of the events file.
            on_violation: called with the metric label of the type of each event that does not fit.

        Raises:
            SchemaError: the schemas cannot be used.
        """
        self._section = section
        self._on_violation = on_violation
        self._schemas = read_folder(section)

    @property
    def rejecting(self) -> SchemaProblem | None:
        return self.problem if self._section.invalid == "reject" else None

    @property
    def marking(self) -> Mark | None:
        return self.mark if self._section.invalid != "reject" else None

    def reload(self) -> None:
        """Read the folder again; if it cannot be used, the old schemas stay in force."""
        try:
            self._schemas = read_folder(self._section)
        except SchemaError as exc:
            _log.error("schemas_reload_failed", error=str(exc))  # whole
        else:
            _log.info("schemas_reloaded", types=len(self._schemas))

    def problem(self, message_type: str, data: bytes) -> str | None:
        """What is wrong with an event, None if nothing is."""
        said = self._schemas.check(message_type, data)
        if said is not None:
            self._on_violation(self._schemas.label(message_type))
        return said

    def mark(self, message_type: str, data: bytes) -> bytes:
        """The header line of an event that does not fit, nothing if it does."""
        said = self.problem(message_type, data)
        if said is None:
            return b""
        # The detail quotes what the device sent; percent-encoding keeps line ends out.
        return b"Tidegate-Schema-Error:%b\r\n" % quote(said, safe=_SAFE).encode()


def schemas_of(file: Path | None, on_violation: Callable[[str], None]) -> SchemaCheck:
    """The schemas that an events file names.

    Args:
        file: the events file, if there is one.
        on_violation: as of `SchemasInForce`.

    Raises:
        EventsError: the file, or a schema, cannot be used.
    """
    section = read_events_file(file).schemas if file is not None else None
    return SchemasInForce(section, on_violation) if section is not None else NoSchemas()

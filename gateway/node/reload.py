"""SIGHUP: certificates, tokens, schemas and keys again. What cannot be used leaves the old."""

from gateway.node.certificate import Transport
from gateway.node.credential_keys import CredentialKeys
from gateway.node.operator_access import OperatorAccess
from gateway.node.schemas_in_force import SchemaCheck
from gateway.process import Background


class Reload:
    """Reads again what may change while the gateway runs."""

    def __init__(
        self,
        *,
        transport: Transport,
        schemas: SchemaCheck,
        keys: CredentialKeys,
        access: OperatorAccess,
        background: Background,
    ) -> None:
        """
        Args:
            transport: its certificate is read again.
            schemas: their folder is read again.
            keys: are looked for again, in the background.
            access: tokens of operators and certificate of their port are read again.
            background: runs that.
        """
        self._transport = transport
        self._schemas = schemas
        self._keys = keys
        self._access = access
        self._background = background

    def run(self) -> None:
        """Read everything again."""
        self._transport.reload()
        self._access.reload()
        self._schemas.reload()
        self._background.add(self._keys.refresh(), "jwks-reload")

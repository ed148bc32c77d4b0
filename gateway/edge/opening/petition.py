"""What a handshake asks for: to be admitted with a credential, perhaps in the slot of a ticket."""

from http import HTTPStatus
from typing import Final

from msgspec import Struct

from gateway.admission.errors import CredentialError
from gateway.edge.errors import Refusal
from gateway.edge.opening.handshake import Request
from tidegate.wire import frames

_BEARER: Final = "bearer "


class Petition(Struct, frozen=True, gc=False):
    """A credential, and a ticket or an empty string."""

    token: str
    ticket: str


def petition_of(request: Request) -> Petition:
    """Read the petition of a request.

    Raises:
        Refusal: its credential cannot be read.
    """
    try:
        return Petition(_token(request), _ticket(request))
    except CredentialError as exc:
        raise credential_refused(exc) from None


def credential_refused(error: CredentialError) -> Refusal:
    """The 401 for a credential that cannot be used."""
    return Refusal(HTTPStatus.UNAUTHORIZED, "credential", reason=error.reason, detail=str(error))


def _token(request: Request) -> str:
    """The credential: of the Authorization header, else of the `bearer.` subprotocol.

    Raises:
        CredentialError: there are several, or it is of another scheme.
    """
    shown = request.values("authorization")
    if len(shown) > 1:
        raise CredentialError("malformed", "several Authorization headers")
    if shown:
        if not shown[0][: len(_BEARER)].lower() == _BEARER:
            raise CredentialError("malformed", "Authorization is not Bearer")
        return shown[0][len(_BEARER) :].strip()
    tokens = _offered_after(frames.BEARER_SUBPROTOCOL_PREFIX, request)
    if len(tokens) > 1:
        raise CredentialError("malformed", "several bearer subprotocols")
    return tokens[0] if tokens else ""


def _ticket(request: Request) -> str:
    """The ticket: of the Tidegate-Ticket header, else of the `ticket.` subprotocol (browsers).

    Several tickets count as none.
    """
    shown = request.values(frames.TICKET_HEADER.lower())
    if not shown:
        shown = _offered_after(frames.TICKET_SUBPROTOCOL_PREFIX, request)
    return shown[0] if len(shown) == 1 else ""


def _offered_after(prefix: str, request: Request) -> list[str]:
    offered = request.elements("sec-websocket-protocol")
    return [name[len(prefix) :] for name in offered if name.startswith(prefix)]

"""Heads of known forms: read, and answered, without the full parser.

In a storm, a few client programs come in thousands of times. Their heads are the same bytes except
for key, credential and ticket (`head.cut_head`). What the full parser says of such a head follows
from the rest, its form: none of the three parts can hold a line end, a colon, a comma or a space,
so other ones in their place change no line, no name and no list. They change the petition, which is
made of them, and one value in the answer. So the full parser judges the first head of each form,
and the next ones only have their parts checked. Forms are learned of heads that the raw scan reads
in the same way, which have each of the three lines once. `make fuzz-heads` looks for a
counter-example.
"""

from typing import Final

from gateway.edge.opening.handshake import ACCEPT_CHARS, Upgrade, accept_of
from gateway.edge.opening.head import cut_head, is_key, is_token_text, scan_head
from gateway.edge.opening.petition import Petition

_FORMS_MAX: Final = 64


class KnownHeads:
    """Forms that the full parser has accepted, each with its answer around the accept value."""

    def __init__(self) -> None:
        self._answers: dict[tuple[bytes, ...], tuple[bytes, bytes]] = {}

    def __len__(self) -> int:
        """Forms remembered."""
        return len(self._answers)

    def read(self, head: bytes) -> tuple[Petition, Upgrade] | None:
        """Read a complete head.

        Returns:
            What the full parser reads, and its answer; None if the full parser must look.
        """
        form, key, token, ticket = cut_head(head)
        answer = self._answers.get(form)
        if answer is None or not (is_key(key) and token and is_token_text(token + ticket)):
            return None
        before, after = answer
        response = before + accept_of(key) + after
        return Petition(token.decode(), ticket.decode()), Upgrade(response, [])

    def learn(self, head: bytes, petition: Petition, upgrade: Upgrade) -> None:
        """The full parser has read this petition in this head, and accepts it with this answer."""
        form, key, token, ticket = cut_head(head)
        if Petition(token.decode("latin-1"), ticket.decode("latin-1")) != petition:
            return  # it is written where the cut does not look
        if upgrade.extensions or not is_key(key) or scan_head(head) != petition:
            return  # extensions belong to one connection
        accept = accept_of(key)
        at = upgrade.response.index(accept)
        if len(self._answers) >= _FORMS_MAX:
            self._answers.clear()
        self._answers[form] = upgrade.response[:at], upgrade.response[at + ACCEPT_CHARS :]

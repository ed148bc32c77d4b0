"""What JetStream's answers mean. Pure: bytes of a reply in, a verdict out.

Error codes are those of the server's `errors.json`. An unknown code is taken as "not now". To
repeat a message that can never be stored costs a hold, which operators see; to give up a message
that could have been stored would lose it.
"""

import re
from typing import Final

import msgspec
from msgspec import Struct

from gateway.stream.api_error import ApiError
from gateway.stream.lanes.batch import CUT_SHORT, Answer, Kind, Verdict
from gateway.stream.lanes.encoding import TOO_LARGE


class _PubAck(Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    count: int = 0
    type: str = ""
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_PubAck).decode

_DUPLICATE_IN_PROCESS: Final = 10158
_TRY_ONE_BY_ONE: Final = {
    10176,  # batch incomplete: one of its messages may have been refused on its way
    10201,  # batch holds a duplicate
    10208,  # fast batch unknown
    10070,  # another message is the last one than a linked batch expects
    # batches not enabled, too many, badly numbered, not supported here
    *(10174, 10175, 10177, 10200, 10205, 10206),
}
_BATCH_TOO_LARGE: Final = 10199
_BATCH_LIMIT: Final = re.compile(r"(\d{1,9})$")
_NEVER: Final = {
    10054: TOO_LARGE,  # larger than the stream's or account's message limit
    10097: "header_size",
}
STORED: Final = Answer(Verdict.STORED)
NO_RESPONDERS: Final = Answer(Verdict.AMBIGUOUS, "no_responders")
TIMEOUT: Final = Answer(Verdict.AMBIGUOUS, "timeout")
DISCONNECTED: Final = Answer(Verdict.AMBIGUOUS, "disconnected")


def read_answer(payload: bytes, *, kind: Kind, stream: str, messages: int) -> Answer | None:
    """The verdict of a reply to a batch (or to one message of a round).

    Args:
        payload: the reply's bytes.
        kind: how the batch was published.
        stream: where it must have been stored.
        messages: how many messages the batch had.

    Returns:
        None if the reply is only on the way to an answer (a flow message of fast ingest).
    """
    try:
        ack = _decode(payload)
    except msgspec.DecodeError:
        return Answer(Verdict.AMBIGUOUS, "error")
    if ack.type:
        return None
    if ack.error is not None:
        answer = _read_error(ack.error, messages)
        return _of_linked(answer) if kind is Kind.LINKED else answer
    if ack.stream != stream:
        # Another stream captured it: it is not where the gateway promised.
        return Answer(Verdict.THROTTLED, "error")
    if kind is Kind.ATOMIC and ack.count not in (0, messages):
        return Answer(Verdict.AMBIGUOUS, "partial")
    if kind is Kind.FAST and (ack.duplicate or ack.count != messages):
        # A duplicate as the first message ends a fast batch; a gap ends it at the gap.
        stored = 0 if ack.duplicate else min(ack.count, messages)
        return Answer(Verdict.PARTIAL, "partial", stored)
    if kind is Kind.LINKED:
        # The last message says nothing of those before it if it was stored earlier.
        return CUT_SHORT if ack.duplicate else Answer(Verdict.STORED, stored_at=ack.seq)
    return Answer(Verdict.DUPLICATE, stored_at=ack.seq) if ack.duplicate else STORED


def _of_linked(answer: Answer) -> Answer:
    """What an error of the last message means for a linked batch: it may be stored in part."""
    if answer.verdict is Verdict.PARTIAL:
        return answer
    return Answer(Verdict.AMBIGUOUS, "limits")


def _read_error(error: ApiError, messages: int) -> Answer:
    code = error.err_code
    if code == _BATCH_TOO_LARGE:
        found = _BATCH_LIMIT.search(error.description)
        allowed = int(found[1]) if found else messages // 2
        return Answer(Verdict.TOO_LARGE, "batch_size", messages_max=allowed)
    if code in _TRY_ONE_BY_ONE:
        return Answer(Verdict.PARTIAL, "partial")
    if code == _DUPLICATE_IN_PROCESS:
        return Answer(Verdict.AMBIGUOUS, "conflict")
    if code in _NEVER:
        return Answer(Verdict.REFUSED, _NEVER[code])
    return Answer(Verdict.THROTTLED, "limits")

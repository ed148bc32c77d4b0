"""The data of messages that a checker can recognise: each says what it is, and a sum over that."""

import json
from zlib import crc32


def payload(label: str, seq: int) -> bytes:
    """The data of a writer's message.

    Args:
        label: the device, or one outbox of it (`veh-1/a`).
        seq: of the message in that outbox.
    """
    name = label.encode()
    return b'{"d":"%b","n":%d,"crc":%d}' % (name, seq, crc32(b"%b:%d" % (name, seq)))


def intact(label: str, seq: int, data: bytes) -> bool:
    """Whether `data` is what `payload` made; white space does not matter."""
    try:
        found = json.loads(data)
    except ValueError:
        return False
    return bool(found == json.loads(payload(label, seq)))


def numbered(seq: int, signals: bytes) -> bytes:
    """The data of a vehicle's message: its number, a sum over the signals, and the signals."""
    return b'{"n":%d,"crc":%d,"signals":%b}' % (seq, crc32(signals), signals)


def numbered_intact(_device: str, seq: int, data: bytes) -> bool:
    """Whether `data` is what `numbered` made."""
    head, found, signals = data.partition(b',"signals":')
    return bool(found) and head == b'{"n":%d,"crc":%d' % (seq, crc32(signals[:-1]))


def claim_of(device: str, data: bytes) -> tuple[str, int]:
    """The label and seq that a message's data names; seq 0 if it names none."""
    try:
        content = json.loads(data)
        label, seq = str(content.get("d", device)), int(content["n"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return device, 0
    return label if label.startswith(f"{device}/") else device, seq

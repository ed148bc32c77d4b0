"""PROTOCOL.md names everything on the wire, so that nothing new stays undocumented."""

import re
from pathlib import Path

import pytest

from gateway.session import errors
from gateway.session.limits import SessionLimits
from gateway.stream.lanes.encoding import SEQ_REUSED
from tidegate.wire import frames

PAGE = (Path(__file__).parents[2] / "clients" / "PROTOCOL.md").read_text()
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "frame",
    [
        frames.Hello,
        frames.Welcome,
        frames.Message,
        frames.Result,
        frames.Reject,
        frames.Hold,
        frames.Goaway,
        frames.Notice,
        frames.Command,
        frames.State,
        frames.ServerFrame,
        frames.DeviceFrame,
    ],
)
def test_every_member_of_every_frame(frame):
    for name in frame.__struct_fields__:
        assert re.search(rf'["`]{name}["`]', PAGE), name


def test_every_close_code():
    ours = {getattr(frames, name) for name in dir(frames) if name.startswith("CLOSE_")}
    causes = {
        each.close_code
        for each in vars(errors).values()
        if isinstance(each, type)
        and issubclass(each, errors.SessionError)
        and each.__subclasses__() == []
    }
    framing = {1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009}
    for code in ours | causes | framing:
        assert re.search(rf"^\| [^|]*\b{code}\b", PAGE, re.MULTILINE), code


def words_in(pattern, *files):
    text = "".join((ROOT / name).read_text() for name in files)
    return set(re.findall(pattern, text))


def test_every_offence_of_a_policy_violation():
    offences = words_in(
        r'PolicyViolation\(\s*"(\w+)"',
        "gateway/session/machine.py",
        "gateway/session/turns.py",
        "gateway/session/intake.py",
        "gateway/edge/device/credentials.py",
        "gateway/edge/connection/connection.py",
        "gateway/edge/connection/reader.py",
    )
    assert {"hello", "gap", "credit", "frame", "flood", "fragments"} <= offences
    for offence in offences:
        assert f"`{offence}`" in PAGE, offence


def test_every_reason_of_a_reject():
    reasons = words_in(r'return "(\w+)", ', "gateway/session/intake.py")
    reasons |= words_in(r'Unusable\(seq, "(\w+)"', "gateway/session/salvage.py")
    assert {"type", "time"} <= reasons
    for reason in reasons | {"depth", "too_large", SEQ_REUSED}:
        assert f"`{reason}`" in PAGE, reason


REFUSALS = (
    "credential revoked bad_request not_found upgrade_required device_rate address_rate admission"
    " rate overload capacity draining"
)


def test_every_word_of_a_refusal():
    used = words_in(
        r'HTTPStatus\.\w+,\s*"(\w+)"', "gateway/edge/gate.py", "gateway/edge/opening/refusal.py"
    )
    assert used
    for word in used | set(REFUSALS.split()):
        assert f"`{word}`" in PAGE, word


def test_the_limits_in_its_example_are_the_defaults():
    limits = SessionLimits()
    for name, value in {
        "max_message_bytes": limits.message_bytes_max,
        "max_frame_bytes": limits.frame_bytes_max,
        "max_messages_per_frame": limits.messages_per_frame_max,
        "max_depth": limits.json_depth_max,
        "credit": limits.credit_initial,
    }.items():
        assert f'"{name}":{value}' in PAGE, name


def test_the_features_and_ways_in():
    for feature in {*frames.FEATURES, frames.STATE, frames.RECEIPTS}:
        assert f"`{feature}`" in PAGE
    for way in (frames.SUBPROTOCOL, frames.BEARER_SUBPROTOCOL_PREFIX, frames.TICKET_HEADER):
        assert way in PAGE
    assert f"`{frames.TICKET_SUBPROTOCOL_PREFIX}" in PAGE

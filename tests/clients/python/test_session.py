import json

import pytest
from msgspec import UNSET, Raw

from tidegate.errors import ProtocolViolation
from tidegate.session import ClientSession, GatewayLimits, frame_bytes_of
from tidegate.wire.frames import Message, encode_messages


def welcome(credit=4, resume=0, outbox="box", **more):
    return json.dumps(
        {
            "welcome": {
                "session": "s",
                "credit": credit,
                "max_message_bytes": 100,
                "resume": {"outbox": outbox, "seq": resume},
                "first_retry_ms": 1,
                "keepalive_ms": 1,
                **more,
            }
        }
    ).encode()


def resume(outbox="next", seq=0, credit=4):
    return json.dumps({"resume": {"outbox": outbox, "seq": seq}, "credit": credit}).encode()


def message(seq):
    return Message(seq, "t", Raw(b"1"), UNSET)


def test_no_message_may_be_sent_before_the_welcome():
    session = ClientSession("box", 1, 0)
    assert session.window == 0
    assert not session.held
    assert json.loads(session.hello()) == {"hello": {"outbox": "box", "oldest": 1, "age_ms": 0}}
    with pytest.raises(ProtocolViolation, match="first frame"):
        session.receive(b'{"ack":1,"credit":3}')


def test_the_window_follows_credit():
    session = ClientSession("box", 5, 0)
    session.receive(welcome(credit=4, resume=4))
    assert session.window == 4
    session.messages([message(5), message(6)])
    assert session.window == 2
    session.receive(b'{"ack":5,"credit":8}')
    assert session.window == 7
    assert session.acked == 5


def test_messages_that_the_stream_holds_are_not_sent_again():
    session = ClientSession("box", 5, 0)
    session.receive(welcome(credit=4, resume=9))
    assert (session.acked, session.sent, session.window) == (9, 9, 4)


def test_a_resume_of_another_outbox_changes_nothing_at_the_start():
    session = ClientSession("box", 5, 0)
    session.receive(welcome(credit=4, resume=900, outbox="other"))
    assert session.sent == 4


def test_a_hold_lasts_until_the_next_ack():
    session = ClientSession("box", 1, 0)
    session.receive(welcome())
    session.messages([message(1)])
    session.receive(b'{"hold":{"reason":"stream"}}')
    assert session.held
    session.receive(b'{"ack":1,"credit":4}')
    assert not session.held


@pytest.mark.parametrize(
    "text", [b"{", b'{"ack":"x"}', b'{"ack":99,"credit":1}', welcome()], ids=str
)
def test_frames_that_no_gateway_sends_are_violations(text):
    session = ClientSession("box", 1, 0)
    session.receive(welcome())
    with pytest.raises(ProtocolViolation):
        session.receive(text)


def test_a_hello_has_sent_only_if_it_is_given():
    said = json.loads(ClientSession("box", 3, 7, 12).hello())
    hello = {"outbox": "box", "oldest": 3, "age_ms": 7, "sent": 12, "receipts": True}
    assert said == {"hello": hello}
    assert "sent" not in json.loads(ClientSession("box", 3, 7).hello())["hello"]
    assert json.loads(ClientSession("box", 3, 7, 0).hello())["hello"]["sent"] == 0


@pytest.mark.parametrize(
    ("sent", "state", "said"),
    [(None, "", {}), (0, None, {"receipts": True}), (0, "e-7", {"receipts": True, "state": "e-7"})],
)
def test_a_plain_hello_asks_for_nothing_that_the_first_gateways_do_not_know(sent, state, said):
    hello = json.loads(ClientSession("box", 3, 7, sent, state).hello())["hello"]
    assert {name: hello[name] for name in hello.keys() & {"receipts", "state"}} == said


def changing(credit=4):
    """A session that has sent one message and continues with outbox `next` from seq 6."""
    session = ClientSession("box", 1, 0)
    session.receive(welcome(features=["outboxes", "newer"]))
    session.messages([message(1)])
    assert not session.is_settled
    session.receive(b'{"ack":1,"credit":9}')
    assert session.is_settled
    said = json.loads(session.change("next", 6, 5, 8))
    hello = {"outbox": "next", "oldest": 6, "age_ms": 5, "sent": 8, "receipts": True}
    assert said == {"hello": hello}
    return session


def test_after_a_further_hello_nothing_is_sent_until_its_answer():
    session = changing()
    assert session.changing
    assert (session.window, session.is_settled) == (0, False)
    session.receive(resume(seq=5, credit=3))
    assert not session.changing
    assert (session.acked, session.sent, session.window) == (5, 5, 3)
    assert session.is_settled
    session.messages([message(6)])
    session.receive(b'{"ack":6,"credit":1}')
    assert (session.acked, session.window) == (6, 2), "credit once given is not taken back"


def test_a_resume_may_be_ahead_and_credit_counts_from_it():
    session = changing()
    session.receive(resume(seq=8, credit=3))
    assert (session.acked, session.sent, session.window) == (8, 8, 3)


def test_a_resume_for_another_outbox_moves_nothing():
    session = changing()
    session.receive(resume(outbox="third", seq=90, credit=3))
    assert (session.acked, session.window) == (5, 3)


def test_a_resume_without_credit_grants_none_and_ends_a_hold():
    session = changing()
    session.receive(b'{"hold":{"reason":"stream"}}')
    session.receive(b'{"resume":{"outbox":"next","seq":5}}')
    assert (session.held, session.window) == (False, 0)
    session.receive(b'{"ack":5,"credit":2}')
    assert session.window == 2


@pytest.mark.parametrize("text", [b'{"ack":1,"credit":1}', b'{"ack":6,"credit":1}', welcome()])
def test_frames_that_no_gateway_sends_before_a_resume_are_violations(text):
    with pytest.raises(ProtocolViolation):
        changing().receive(text)


def test_a_resume_without_a_further_hello_is_a_violation():
    session = ClientSession("box", 1, 0)
    session.receive(welcome(features=["outboxes"]))
    with pytest.raises(ProtocolViolation, match="without a further hello"):
        session.receive(resume())


def test_only_a_gateway_that_says_so_lets_a_session_change():
    session = ClientSession("box", 1, 0)
    assert not session.can_change
    assert not session.is_settled, "not before the welcome"
    session.receive(welcome(features=["receipts"]))
    assert not session.can_change


def test_a_hold_keeps_what_was_granted_for_later():
    session = ClientSession("box", 1, 0)
    session.receive(welcome(credit=4))
    session.receive(b'{"hold":{"reason":"stream"}}')
    assert session.window == 0
    session.receive(b'{"ack":0,"credit":0}')
    assert session.window == 4


def test_an_ack_without_credit_grants_none():
    session = ClientSession("box", 1, 0)
    session.receive(welcome(credit=1))
    session.messages([message(1)])
    session.receive(b'{"ack":1}')
    assert (session.acked, session.window) == (1, 0)
    session.receive(b'{"ack":0,"credit":1}')
    assert session.acked == 1, "an older ack takes nothing back"


# Limits


def told(**more):
    session = ClientSession("box", 1, 0)
    session.receive(welcome(**more))
    return session.limits


def test_a_gateway_names_its_limits():
    limits = told(
        max_message_bytes=9, max_frame_bytes=99, max_messages_per_frame=7, max_depth=3,
    )  # fmt: skip
    assert limits == GatewayLimits(99, 9, 7, 3)


@pytest.mark.parametrize("nothing", [{}, {"max_depth": 0}, {"max_messages_per_frame": -1}])
def test_a_gateway_that_names_no_limits_has_the_default_ones(nothing):
    limits = told(**nothing)
    assert (limits.frame_bytes, limits.messages_per_frame, limits.depth) == (65_536, 1_000, 32)
    assert limits.message_bytes == 100


def test_limits_beyond_reason_are_bounded():
    assert told(max_depth=10**9).depth == 1_000
    assert told(max_message_bytes=0).message_bytes == 1
    limits = told(max_depth=1, max_messages_per_frame=1, max_frame_bytes=1)
    assert (limits.depth, limits.messages_per_frame, limits.frame_bytes) == (1, 1, 1)
    assert told(max_message_bytes=100_000).frame_bytes == 101_024, "one message fits"


def test_messages_that_can_never_be_sent_are_objected_to():
    limits = GatewayLimits(frame_bytes=300, message_bytes=200, messages_per_frame=5, depth=2)

    def objection(data, message_type="t"):
        reject = limits.objection(Message(4, message_type, Raw(data), UNSET))
        return None if reject is None else (reject.seq, reject.error)

    assert objection(b"x" * 200) is None
    assert objection(b"x" * 201) == (4, "too_large")
    assert objection(b"x" * 200, "t" * 36) is None
    assert objection(b"x" * 200, "t" * 37) == (4, "too_large")
    assert objection(b"[[1]]") is None
    assert objection(b"[[[1]]]") == (4, "depth")


@pytest.mark.parametrize("time", [UNSET, "2026-11-25T10:00:00.123456789+00:00"])
def test_the_size_of_a_frame_is_not_underestimated(time):
    widest = Message(2**53 - 1, "a.b", Raw(b'"data"'), time)
    assert len(encode_messages([widest])) <= frame_bytes_of(widest)
    assert len(encode_messages([widest] * 10)) <= 10 * frame_bytes_of(widest)


@pytest.mark.parametrize(
    ("features", "traces", "settles", "brief"),
    [
        ([], False, False, False),
        (["outboxes"], False, False, False),
        (["trace"], True, False, False),
        (["state"], False, False, True),
        (["receipts"], False, True, True),
    ],
)
def test_a_session_knows_what_its_gateway_understands(features, traces, settles, brief):
    """`brief`: the first hello was plain, and there is more to say."""
    session = ClientSession("box", 1, 0)
    assert not session.takes_traces
    assert not session.settles_results
    assert not session.was_too_brief
    session.receive(welcome(features=features))
    assert session.takes_traces == traces
    assert session.settles_results == settles
    assert session.was_too_brief == brief

"""One answer about a device from what each node of a fleet knows."""

import pytest

from gateway.node.ops.device_lookup import EVENTS_SHOWN_MAX, OperatorDevices, merged


async def no_presence(_tenant, _device):
    return None


def known(node, *, fence=None, refusals=(), closes=(), revoked=None, parked=False):
    return {
        "node": node,
        "parked": parked,
        "session": None if fence is None else {"fence": fence},
        "revoked_until": revoked,
        "refusals": [{"at": at, "error": "admission"} for at in refusals],
        "closes": [{"at": at, "cause": "lost"} for at in closes],
    }


def test_the_newest_session_is_shown_and_all_refusals_in_order():
    answers = [
        known("a", fence=5, refusals=["t1", "t3"]),
        known("b", fence=7, refusals=["t2"], closes=["t9"], revoked="t8"),
        known("c"),
    ]
    found = merged("t", "d", answers, nodes=4)
    assert (found["node"], found["session"]) == ("b", {"fence": 7})
    shown = [(each["at"], each["node"]) for each in found["refusals"]]
    assert shown == [("t3", "a"), ("t2", "b"), ("t1", "a")]
    assert found["closes"] == [{"at": "t9", "cause": "lost", "node": "b"}]
    assert found["revoked_until"] == "t8"
    assert (found["nodes"], found["nodes_answered"]) == (4, 3)


def test_what_no_node_knows_is_said_and_what_is_shown_is_bounded():
    found = merged("t", "d", [known("a", refusals=[f"t{n:02}" for n in range(50)])], nodes=1)
    assert (found["node"], found["session"], found["revoked_until"]) == (None, None, None)
    assert len(found["refusals"]) == EVENTS_SHOWN_MAX


def test_the_node_at_which_a_device_waits_is_named_and_an_older_node_says_nothing_of_it():
    older = known("a")
    del older["parked"]
    assert merged("t", "d", [older, known("b", parked=True)], nodes=2)["parked"] == "b"
    assert merged("t", "d", [older], nodes=1)["parked"] is None


class Here:
    def __init__(self, has_session):
        self.has_session = has_session

    def describe(self, _tenant, _device):
        answer = known("")
        del answer["node"]
        return answer

    def disconnect(self, _tenant, _device):
        return {"disconnected": self.has_session}


class Others:
    peers = 2

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    async def ask(self, question):
        self.asked.append(question)
        return list(self.answers)


async def test_other_nodes_are_asked_and_a_strange_answer_is_left_out():
    older = known("b", fence=1)
    del older["parked"]  # a node of an older version is a good witness
    others = Others(older, {"node": "c"})
    found = await OperatorDevices(Here(False), others, "a", no_presence).find("t", "d")
    assert (found["node"], found["nodes"], found["nodes_answered"]) == ("b", 3, 2)
    assert others.asked == [{"what": "whois", "tenant": "t", "device": "d"}]


@pytest.mark.parametrize(
    ("here", "answers", "done", "asked"),
    [
        (True, [], True, 0),
        (False, [{"disconnected": False}, {"disconnected": True}], True, 1),
        (False, [{"disconnected": False}, {}], False, 1),
    ],
)
async def test_a_session_is_ended_wherever_it_is(here, answers, done, asked):
    others = Others(*answers)
    assert await OperatorDevices(Here(here), others, "a", no_presence).disconnect("t", "d") is done
    assert len(others.asked) == asked

"""What `tidegate whois` tells a person about an answer."""

from gateway.commands.whois import lines

NOTHING = {
    "tenant": "default",
    "device": "veh-1",
    "node": None,
    "session": None,
    "parked": None,
    "revoked_until": None,
    "refusals": [],
    "closes": [],
}


def session(**changes):
    return {
        "id": "5e55",
        "state": "established",
        "leaving": False,
        "acked": 7,
        "credit": 32,
        "unsettled": 0,
        "greedy": False,
        "last_message_s_ago": 1.5,
        "last_ack_s_ago": 1.25,
    } | changes


def said(**changes):
    return list(lines(NOTHING | changes))


def test_a_device_that_waits_in_the_handshake_is_shown_as_such():
    waits = "  it waits in the handshake at node n1, for a slot that is near"
    assert said(parked="n1") == ["default/veh-1 is not connected", waits]


def test_the_stored_presence_is_shown():
    fact = {"online": False, "time": "2026-11-26T05:00:00Z", "cause": "node_lost", "node": "n2"}
    shown = "  stored presence: offline since 2026-11-26T05:00:00Z, node_lost, by node n2"
    assert said(presence=fact) == ["default/veh-1 is not connected", shown]


def test_a_session_is_shown_with_its_id_and_its_last_ack():
    first, second = said(node="n1", session=session())
    assert first == "default/veh-1 is connected to node n1 (established), session 5e55"
    assert second.endswith("0 not settled yet, last message 1.5 s ago, last ack 1.25 s ago")


def test_a_session_without_a_welcome_says_what_it_waits_for():
    shown = said(node="n1", session=session(id="", state="greeting"))
    assert shown == [
        "default/veh-1 is connected to node n1 (greeting)",
        "  it is admitted and has not said hello yet",
    ]


def test_an_older_node_that_names_no_session_and_no_ack_is_understood():
    older = session(last_message_s_ago=None)
    del older["id"], older["last_ack_s_ago"]
    first, second = said(node="n1", session=older)
    assert first == "default/veh-1 is connected to node n1 (established)"
    assert second.endswith("no message yet, no ack yet")

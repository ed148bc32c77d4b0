"""One answer of those of all workers."""

from gateway.supervisor import answers


def page(**more):
    return {
        "version": "1",
        "devices": 3,
        "connections": 4,
        "connections_max": 10,
        "first_retry_ms": 100,
        "pending": {"messages": 1, "bytes": 20},
        "admission": {"rate_per_s": 500.0},
        "stream": {},
        "credentials": {},
        "not_ready": None,
        **more,
    }


OWN = {"node": "s", "state": "serving", "workers": {1: {"pid": 11}, 2: {"pid": 12}}}


def test_an_order_went_as_far_as_the_worker_on_which_it_went_furthest():
    found = [
        {"unrevoked": "pending", "was_revoked": True},
        {"unrevoked": "fleet", "was_revoked": False},
    ]
    assert answers.reached("unrevoked", found) == {"unrevoked": "fleet", "was_revoked": True}
    assert answers.reached("revoked", [{"revoked": "memory"}, {"revoked": "pending"}]) == {
        "revoked": "pending"
    }


def test_a_device_is_disconnected_if_one_worker_had_it():
    assert answers.disconnected([{"disconnected": False}, {"disconnected": True}]) == {
        "disconnected": True
    }
    assert answers.disconnected([{"disconnected": False}]) == {"disconnected": False}


def looked_up(**more):
    return {
        "node": None,
        "session": None,
        "revoked_until": None,
        "refusals": [],
        "closes": [],
        "nodes": 1,
        "nodes_answered": 1,
        **more,
    }


def test_a_device_is_where_its_newest_session_is_also_while_no_worker_hears_another():
    knock = {"at": "2026-11-26T10:00:01Z", "error": "admission", "node": "a"}
    later = {"at": "2026-11-26T10:00:02Z", "error": "admission", "node": "b"}
    found = answers.looked_up(
        [
            looked_up(node="a", session={"fence": 7}, refusals=[knock]),
            looked_up(node="b", session={"fence": 8}, refusals=[later, knock]),
        ]
    )
    assert (found["node"], found["session"]) == ("b", {"fence": 8})
    assert found["refusals"] == [later, knock]
    assert (found["nodes"], found["nodes_answered"]) == (2, 2)


def test_a_device_that_nobody_has_is_not_connected():
    found = answers.looked_up([looked_up(nodes=3, nodes_answered=3), looked_up()])
    assert (found["session"], found["nodes_answered"]) == (None, 3)


def test_the_status_adds_what_each_worker_has_a_part_of():
    found = answers.status(OWN, {1: page(), 2: page(devices=5, first_retry_ms=250)})
    assert (found["devices"], found["connections"], found["connections_max"]) == (8, 8, 20)
    assert (found["pending"], found["first_retry_ms"]) == ({"messages": 2, "bytes": 40}, 250)
    assert [(part["worker"], part["pid"], part["devices"]) for part in found["workers"]] == [
        (1, 11, 3),
        (2, 12, 5),
    ]


def test_a_worker_that_gives_no_answer_is_named_all_the_same():
    found = answers.status(OWN, {1: None, 2: page()})
    assert found["workers"][0] == {"worker": 1, "pid": 11}
    assert found["devices"] == 3
    assert answers.status(OWN, {1: None, 2: None})["devices"] == 0


def test_a_second_of_the_live_page_adds_counts_and_shows_the_worst():
    def taken(**more):
        series = {
            "devices": 1, "admitted": 2, "refused": 3, "messages": 4, "pending": 5,
            "rate": 500.0, "lead": 1.0, "ack_p99_ms": 9.0, "loop_lag_ms": 2.0, **more,
        }  # fmt: skip
        refused, dead = [("admission/rate", 3)], [("schema", 1)]
        return {
            "at": 7.0,
            "series": series,
            "status": page(),
            "refused": refused,
            "dead": dead,
            "lanes": [(1, 2, 3)],
        }

    found = answers.snapshot({**OWN, "at": 6.0}, {1: taken(), 2: taken(lead=4.0)})
    series = found["series"]
    assert (series["admitted"], series["lead"], series["rate"], found["at"]) == (4, 4.0, 500.0, 7.0)
    assert (found["refused"], found["dead"]) == ([("admission/rate", 6)], [("schema", 2)])
    assert found["status"]["devices"] == 6
    assert found["lanes"] == [(1, 2, 3, 1, 1), (1, 2, 3, 1, 2)]
    assert found["parts"][2]["lead"] == 4.0

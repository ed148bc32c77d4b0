"""What the index of rules finds, and what it does not try.

`test_pattern_oracle.py` checks it against generated patterns.
"""

import random

from gateway.events.matching import compiled
from gateway.events.patterns import parse_pattern
from gateway.events.rule_index import RuleIndex


def index_of(*written):
    return RuleIndex({number: parse_pattern(each) for number, each in enumerate(written)})


def code(*values):
    return {"type": ["low"], "data": {"code": list(values)}}


def test_literals_and_prefixes_of_one_leaf_find_the_rule():
    index = index_of(code("E7", {"prefix": "F"}), code("E8"), code({"prefix": "E"}))
    found = {
        text: sorted(index.matching({"type": "low", "data": {"code": text}}))
        for text in ("E7", "E8", "F1", "x")
    }
    assert found == {"E7": [0, 2], "E8": [1, 2], "F1": [0], "x": []}


def test_true_is_not_1_and_a_rule_is_found_once():
    index = index_of(code(1, True), code(True), code(1.0), code(None))
    of = lambda value: sorted(index.matching({"type": "low", "data": {"code": value}}))  # noqa: E731
    assert (of(1), of(True), of(None)) == ([0, 2], [0, 1], [3])
    assert index.matching({"type": "low", "data": {}}) == []
    assert index.matching({"type": "low"}) == []


def test_arrays_are_looked_through():
    index = index_of({"data": {"items": {"code": ["a"]}}}, {"data": {"items": {"code": ["b"]}}})
    items = [{"code": ["x", "a"]}, [{"code": "b"}], 7]
    assert sorted(index.matching({"data": {"items": items}})) == [0, 1]
    assert index.matching({"data": [{"items": {"code": "b"}}]}) == [1]


def test_rules_that_one_value_tells_apart_are_not_tried_in_turn(monkeypatch):
    """Of 100 rules on one type an event of one code costs the tests of those with this code."""
    tried = []

    def counting(pattern):
        test = compiled(pattern)

        def matches(members):
            tried.append(pattern)
            return test(members)

        return matches

    monkeypatch.setattr("gateway.events.rule_index.compiled", counting)
    index = index_of(*(code(f"E{number}") for number in range(100)))
    assert index.matching({"type": "low", "data": {"code": "E42"}}) == [42]
    assert len(tried) == 1


def test_the_path_that_tells_most_apart_is_chosen_for_each_rule():
    rng = random.Random(1)
    written = [code(f"E{number}") for number in range(10)]
    written += [{"device": [f"veh-{number}"], "data": {"code": ["E1"]}} for number in range(10)]
    index = index_of(*written)
    for _ in range(100):
        event = {
            "type": "low",
            "device": f"veh-{rng.randrange(12)}",
            "data": {"code": f"E{rng.randrange(12)}"},
        }
        wanted = [n for n, each in enumerate(written) if compiled(parse_pattern(each))(event)]
        assert sorted(index.matching(event)) == wanted

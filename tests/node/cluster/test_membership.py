"""A node without a fleet does everything that a member of one does, with nobody to tell."""

from gateway.admission.calendar import CalendarSettings
from gateway.admission.revocation import Revocation
from gateway.node.cluster.membership import LoneNode, Reach
from gateway.telemetry.metrics import Metrics


async def test_a_lone_node_has_the_whole_of_r_and_no_peers():
    node = LoneNode(CalendarSettings(burst=10), rate_per_s=100.0, now=0.0)
    await node.open()
    assert (node.peers, node.pending, list(node.work()), node.status()) == (0, 0, [], {})
    node.propose(40.0)
    assert node.calendar.rate_per_s == 40.0
    node.arrived(("t", "d"), 1, b"12345678")
    node.departed(("t", "d"), 1)
    assert await node.share([Revocation(1.0, jti="j")]) is Reach.NODE
    metrics = Metrics()
    before = metrics.exposition()
    node.register_gauges(metrics)
    assert metrics.exposition()[0].count(b"# HELP") == before[0].count(b"# HELP")
    await node.close()

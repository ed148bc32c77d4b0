from gateway.edge.fleet import Fleet


class Session:
    is_open = True

    def __init__(self, device):
        self.key = ("default", device)


def test_the_newest_session_speaks_for_its_device():
    fleet = Fleet(first_retry_ms_min=1, refusals_per_s=10, clock=lambda: 0.0)
    old, new = Session("a"), Session("a")
    assert fleet.add(old) is None
    assert fleet.add(new) is old
    fleet.remove(old)
    assert fleet.find("default", "a") is new
    fleet.remove(new)
    assert fleet.find("default", "a") is None


def test_the_first_retry_grows_with_the_fleet():
    fleet = Fleet(first_retry_ms_min=2_000, refusals_per_s=10, clock=lambda: 0.0)
    for n in range(50):
        fleet.add(Session(str(n)))
    assert fleet.first_retry_ms == 5_000
    assert len(list(fleet)) == 50

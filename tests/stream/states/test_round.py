"""Rounds of look-ups, and what holds whatever happens: a device ends with the newest state.

The property plays a stream with a leader and a replica that lags, two nodes with a follower each
that lags too, and a device that flaps between the nodes. Sets, look-ups, deliveries, reconnects and
a stream made anew come in any order.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.session.desired import DesiredState, Version, parse_version
from gateway.stream.states.known import NO_STATE, Known, KnownStates
from gateway.stream.states.round import StateRound

KEY, OTHER = ("t", "veh-1"), ("t", "veh-2")


def known_states(floor=0):
    states = KnownStates(bytes_max=100_000)
    states.begin(f"{1:016x}", floor, None)
    return states


def test_what_is_known_costs_no_question():
    states = known_states()
    states.learn(KEY, Known(5, b"{}"))
    planned = StateRound(states, {KEY: Version(states.epoch, 5), OTHER: None})
    assert (planned.direct, planned.leader) == ([OTHER], [])
    assert planned.answers[KEY] == (Known(5, b"{}"), False)
    planned.found({}, 0, whole=True)
    assert planned.answers[OTHER] == (NO_STATE, False)
    assert states.get(OTHER) == NO_STATE


def test_an_answer_that_proves_nothing_is_asked_of_the_leader():
    for up_to, whole in ((6, True), (-1, False), (9, False)):
        states = known_states(floor=7)
        planned = StateRound(states, {KEY: None})
        planned.found({}, up_to, whole=whole)
        assert planned.leader == [KEY]
        planned.told_by_leader(KEY, Known(7, b"{}"))
        assert planned.answers[KEY] == (Known(7, b"{}"), True)


def test_a_higher_claim_is_asked_of_the_leader():
    states = known_states()
    states.learn(KEY, Known(5, b"{}"))
    planned = StateRound(states, {KEY: Version(states.epoch, 6)})
    assert (planned.direct, planned.leader, planned.epoch_in_doubt) == ([], [KEY], False)
    later = StateRound(states, {KEY: Version(f"{2:016x}", 1)})
    assert (later.leader, later.epoch_in_doubt) == ([KEY], True)


class Stream:
    """A subject each for some devices, as the leader has it; `behind` is what a replica has."""

    def __init__(self, epoch):
        self.epoch = f"{epoch:016x}"
        self.history = []

    def set(self, key):
        sequence = len(self.history) + 1
        self.history.append((key, Known(sequence, b'{"n":%d}' % sequence)))

    def last(self, key, up_to):
        found = [known for each, known in self.history[:up_to] if each == key]
        return found[-1] if found else NO_STATE


class Node:
    """A node that follows the stream, with a cache that forgets nearly everything."""

    def __init__(self, stream):
        self.known = KnownStates(bytes_max=450)
        self.stream = stream
        self.place = 0
        self.session = None

    def begin(self, stream):
        self.stream, self.place = stream, len(stream.history)
        self.known.begin(stream.epoch, self.place, None)
        if self.session is not None:
            self.session.desired.enter(stream.epoch)
            self.session.asking = True

    def follow(self):
        if self.place < len(self.stream.history):
            key, known = self.stream.history[self.place]
            self.place += 1
            self.known.followed(key, known)
            if self.session is not None and key == KEY:
                self.session.tell(self.known.version(known))


class Session:
    """The session of the device on one node, as the edge's `StateTalk` runs it."""

    def __init__(self, node, device):
        self.device = device
        self.desired = DesiredState(device.version)
        known = node.known.get(KEY)
        self.asking = known is None or self.desired.ahead_of(node.known.version(known))
        if not self.asking:
            self.tell(node.known.version(known))

    def tell(self, version):
        if self.desired.take(version):
            self.device.take(version)


class Device:
    def __init__(self):
        self.version = ""

    def take(self, version):
        held = parse_version(self.version)
        assert held is None or held.epoch != version.epoch or held.sequence < version.sequence
        self.version = str(version)


class FlappingDevice(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.epochs = 1
        self.stream = Stream(1)
        self.device = Device()
        self.nodes = [Node(self.stream), Node(self.stream)]
        for node in self.nodes:
            node.begin(self.stream)

    @rule(key=st.sampled_from([KEY, OTHER]))
    def set(self, key):
        self.stream.set(key)

    @rule(which=st.integers(0, 1))
    def reconnect(self, which):
        for node in self.nodes:
            node.session = None
        node = self.nodes[which]
        node.session = Session(node, self.device)

    @rule(which=st.integers(0, 1))
    def restart(self, which):
        """The device comes to a fresh node, which has seen nothing of what was set before."""
        self.nodes[which] = Node(self.stream)
        self.nodes[which].begin(self.stream)
        self.reconnect(which)

    @rule(which=st.integers(0, 1), lag=st.integers(0, 2))
    def set_and_come_to_a_fresh_node(self, which, lag):
        self.set(KEY)
        self.restart(which)
        self.look_up(which, lag, whole=True)

    @rule(which=st.integers(0, 1))
    def follow(self, which):
        self.nodes[which].follow()

    @rule(which=st.integers(0, 1), lag=st.integers(0, 2), whole=st.booleans())
    def look_up(self, which, lag, whole):
        node = self.nodes[which]
        if node.stream is not self.stream:
            return  # the shell refuses the answers of another stream
        self.answer(node, max(0, len(self.stream.history) - lag), whole=whole)

    def answer(self, node, up_to, *, whole):
        session = node.session
        if session is None or not session.asking:
            return
        planned = StateRound(node.known, {KEY: session.desired.told})
        if planned.direct:
            last = self.stream.last(KEY, up_to)
            found = {KEY: last} if last.sequence and whole else {}
            planned.found(found, up_to, whole=whole)
        for key in planned.leader:
            planned.told_by_leader(key, self.stream.last(key, len(self.stream.history)))
        known, verified = planned.answers[KEY]
        version = node.known.version(known)
        session.asking = False
        if verified and session.desired.ahead_of(version):
            session.desired.disprove()
        session.tell(version)

    @precondition(lambda self: self.epochs < 4)
    @rule()
    def make_anew(self):
        self.epochs += 1
        self.stream = Stream(self.epochs)

    @rule(which=st.integers(0, 1))
    def notice(self, which):
        if self.nodes[which].stream is not self.stream:
            self.nodes[which].begin(self.stream)

    @invariant()
    def what_is_quiet_is_right(self):
        """Where a node has caught up and nothing is asked, its device has the newest state."""
        for node in self.nodes:
            session = node.session
            caught_up = node.stream is self.stream and node.place == len(self.stream.history)
            if session is not None and not session.asking and caught_up:
                last = self.stream.last(KEY, len(self.stream.history))
                if last.sequence:
                    assert self.device.version == f"{self.stream.epoch}-{last.sequence}"


TestFlappingDevice = FlappingDevice.TestCase
TestFlappingDevice.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def test_a_fresh_node_believes_no_replica_that_lags():
    """The shortest way to a device that stays with an old state for ever."""
    play = FlappingDevice()
    play.set(KEY)
    play.restart(0)
    play.reconnect(0)
    play.look_up(0, lag=1, whole=True)
    play.what_is_quiet_is_right()
    assert play.device.version == f"{play.stream.epoch}-1"

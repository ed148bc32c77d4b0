import threading

from gateway.telemetry.summing import CAUSES_MAX, FIRST, OTHER, WINDOW_S, Kind, Summary, Summing

LOST = Kind("seq_reused", "warning", "")


class Log:
    """What is written, with a clock that is moved by hand."""

    def __init__(self):
        self.now = 100.0
        self.summing = Summing(lambda: self.now)

    def written(self, kind, lines):
        return sum(self.summing.take(kind) for _ in range(lines))


def test_the_first_lines_are_written_and_the_others_are_counted_once():
    log = Log()
    assert log.written(LOST, 10_000) == FIRST
    assert log.summing.due() == []
    log.now += WINDOW_S
    assert log.summing.due() == [Summary(LOST, 10_000 - FIRST, WINDOW_S)]
    assert log.summing.due() == []
    assert log.written(LOST, 2) == 2


def test_few_lines_are_written_as_they_are():
    log = Log()
    for _ in range(10):
        assert log.written(LOST, FIRST) == FIRST
        log.now += WINDOW_S
        assert log.summing.due() == []


def test_events_levels_and_causes_are_told_apart():
    log = Log()
    kinds = [LOST, LOST._replace(cause="x"), LOST._replace(level="error"), Kind("a", "warning", "")]
    for kind in kinds:
        assert log.written(kind, FIRST + 1) == FIRST
    assert [each.kind for each in log.summing.due(all_of_them=True)] == kinds


def test_at_the_end_everything_is_said():
    log = Log()
    log.written(LOST, FIRST + 3)
    assert log.summing.due(all_of_them=True) == [Summary(LOST, 3, 0.0)]


def test_causes_beyond_the_bound_count_as_one_and_none_is_lost():
    log = Log()
    written = sum(log.written(LOST._replace(cause=f"veh-{n}"), 1) for n in range(10_000))
    assert written == CAUSES_MAX + FIRST
    assert len(log.summing._windows) == CAUSES_MAX + 1
    (left_out,) = log.summing.due(all_of_them=True)
    assert left_out.kind == LOST._replace(cause=OTHER)
    assert left_out.lines + written == 10_000


def test_lines_of_several_threads_are_all_counted():
    log, written = Log(), []
    threads = [
        threading.Thread(target=lambda: written.append(log.written(LOST, 5_000))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(written) == FIRST
    assert log.summing.due(all_of_them=True)[0].lines == 20_000 - FIRST

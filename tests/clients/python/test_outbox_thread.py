import asyncio
import threading

import pytest

from support.scripted import told
from support.waiting import eventually, within
from tidegate.environment import Environment
from tidegate.errors import NotOpen, OutboxError, OutboxFull
from tidegate.outbox import Entry, Outbox, OutboxLimits
from tidegate.outbox_thread import OutboxThread


def entry(data=b"1"):
    return Entry("t", data, None)


async def open_box(path, limits=None, on_change=lambda: None):
    return await OutboxThread.open(path, limits, on_change, Environment())


class Gate:
    """Holds the outbox's thread until it is opened."""

    def __init__(self, store):
        self._open = threading.Event()
        self._started = threading.Event()
        store._thread.submit(self._wait)

    def _wait(self):
        self._started.set()
        self._open.wait(30)

    async def held(self):
        await asyncio.to_thread(self._started.wait, 30)

    def open(self):
        self._open.set()


async def test_concurrent_appends_share_a_commit(tmp_path, monkeypatch):
    commits = []
    real = Outbox.append

    def counting(self, entries):
        commits.append(len(entries))
        return real(self, entries)

    monkeypatch.setattr(Outbox, "append", counting)
    store = await open_box(tmp_path / "box")
    gate = Gate(store)
    await gate.held()
    appending = [asyncio.create_task(store.append(entry())) for _ in range(100)]
    await asyncio.sleep(0)
    gate.open()
    assert sorted(await within(asyncio.gather(*appending))) == list(range(1, 101))
    assert commits == [100]
    await store.close()


async def test_each_append_of_a_commit_gets_its_own_result(tmp_path):
    store = await open_box(tmp_path / "box", OutboxLimits(messages_max=2))
    results = await asyncio.gather(
        *(store.append(entry()) for _ in range(3)), return_exceptions=True
    )
    assert results[:2] == [1, 2]
    assert isinstance(results[2], OutboxFull)
    await store.close()


async def test_a_settle_is_done_although_its_task_is_cancelled(tmp_path):
    store = await open_box(tmp_path / "box")
    await store.append(entry())
    run = await store.begin()
    gate = Gate(store)
    await gate.held()
    store.settle(run.id, 1)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done(), "the file is closed first"
    gate.open()
    await asyncio.wait({closing})
    assert closing.cancelled()
    box = Outbox(tmp_path / "box")
    assert len(box) == 0
    box.close()


async def test_appends_that_wait_at_the_close_are_stored(tmp_path):
    store = await open_box(tmp_path / "box")
    gate = Gate(store)
    await gate.held()
    appending = asyncio.create_task(store.append(entry()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    gate.open()
    assert await within(appending) == 1
    await within(closing)
    await store.close()
    with pytest.raises(NotOpen):
        await store.append(entry())


async def test_an_append_that_fails_tells_all_who_wait(tmp_path, monkeypatch):
    store = await open_box(tmp_path / "box")

    def refuse(_self, _entries):
        raise OutboxError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "append", refuse)
        for each in [asyncio.create_task(store.append(entry())) for _ in range(3)]:
            assert isinstance(await told(each), OutboxError)
    assert await store.append(entry()) == 1
    await store.close()


async def test_a_fault_in_the_thread_is_logged_and_raised_by_every_waiting_append(
    tmp_path, monkeypatch, caplog
):
    store = await open_box(tmp_path / "box")

    def broken(_self, _entries):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "append", broken)
        with pytest.raises(OutboxError, match="ZeroDivisionError"):
            await within(store.append(entry()))
    await eventually(lambda: "the outbox failed" in caplog.text)
    await store.close()


async def test_a_settle_that_the_disk_refuses_is_logged_once_and_repeated(
    tmp_path, monkeypatch, caplog
):
    changes = []
    store = await open_box(tmp_path / "box", on_change=lambda: changes.append(1))
    await store.append(entry())
    run = await store.begin()
    real, fails = Outbox._forget, []

    def refusing(self, *arguments):
        if len(fails) < 3:
            fails.append(1)
            raise OutboxError("the disk is full")
        return real(self, *arguments)

    monkeypatch.setattr(Outbox, "_forget", refusing)
    store.settle(run.id, 1)
    await store.caught_up()
    assert store.outbox.messages == 1
    for _ in range(4):
        await store.tend()
    assert store.outbox.messages == 0
    assert caplog.text.count("the disk is full") == 1
    assert changes
    await store.close()


async def test_a_cancelled_opening_leaves_the_file_free(tmp_path):
    reached, go_on = threading.Event(), threading.Event()

    def slowly(path, limits, clock):
        box = Outbox(path, limits, clock)
        reached.set()
        go_on.wait(30)
        return box

    opening = asyncio.create_task(
        OutboxThread.open(tmp_path / "box", None, lambda: None, Environment(), make=slowly)
    )
    await asyncio.to_thread(reached.wait, 30)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    go_on.set()
    await eventually(lambda: _opens(tmp_path / "box"))


def _opens(path):
    try:
        Outbox(path).close()
    except OutboxError:
        return False
    return True


async def test_a_failed_opening_leaves_no_thread(tmp_path):
    before = threading.active_count()
    with pytest.raises(OutboxError):
        await open_box(tmp_path)
    await eventually(lambda: threading.active_count() <= before)

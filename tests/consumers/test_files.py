import json

import pytest

from gateway.consumers.errors import NotOwner, TargetRefused
from gateway.consumers.files import FilesTarget
from gateway.events.document import FilesSink
from gateway.events.event import Event
from gateway.events.position import Position

CREATED = "2026-11-25T10:00:00Z"
HEADERS = b"NATS/1.0\r\nNats-Msg-Id:default:veh-1:o1:1\r\nce-id:o1:1\r\nce-time:2026\r\n\r\n"


def event(seq, data=b'{"soc":\n7}'):
    return Event("events.default.veh-1.battery.low", HEADERS, data, seq, 10**18)


def after(seq):
    return Position(CREATED, seq, "default:veh-1:o1:1")


@pytest.fixture
async def make(tmp_path):
    opened = []

    async def build(clock=lambda: 0.0, **changes):
        sink = FilesSink.model_validate(
            {"name": "log", "kind": "files", "directory": tmp_path / "out"} | changes
        )
        target = FilesTarget(sink, clock=clock)
        opened.append(target)
        await target.open()
        return target

    yield build
    for target in opened:
        await target.close()


async def owned(target):
    assert await target.claim() == (True, None)
    await target.begin(Position(CREATED, 0))
    return target


async def bury(_rejected):
    raise AssertionError("nothing to bury")


def lines(tmp_path):
    return [
        json.loads(line)
        for path in sorted((tmp_path / "out").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


async def test_a_line_an_event_and_the_position_behind_them(make, tmp_path):
    target = await owned(await make())
    assert await target.write([event(3), event(5)], after(5), bury) == 0
    assert [(line["stream_seq"], line["device"], line["data"]) for line in lines(tmp_path)] == [
        (3, "veh-1", {"soc": 7}),
        (5, "veh-1", {"soc": 7}),
    ]
    await target.close()
    assert await (await make()).claim() == (True, after(5))


async def test_one_process_at_a_time(make):
    first = await owned(await make())
    second = await make()
    assert await second.claim() == (False, None)
    await first.release()
    assert (await second.claim())[0]
    with pytest.raises(NotOwner):
        await first.write([event(1)], after(1), bury)


async def test_half_a_line_is_cut_off_and_whole_lines_count(make, tmp_path):
    target = await owned(await make())
    await target.write([event(1)], after(1), bury)
    await target.close()
    (path,) = (tmp_path / "out").glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole.replace(b'"stream_seq":1', b'"stream_seq":2') + whole[:30])
    again = await make()
    assert await again.claim() == (True, after(2))
    await again.write([event(3)], after(3), bury)
    assert [line["stream_seq"] for line in lines(tmp_path)] == [1, 2, 3]


async def test_files_rotate_by_size_and_by_age(make, tmp_path):
    now = [0.0]
    target = await owned(await make(clock=lambda: now[0], rotate_bytes=65_536, rotate_s=60))
    large = event(1, json.dumps("x" * 70_000).encode())
    await target.write([large], after(1), bury)
    await target.write([event(2)], after(2), bury)
    now[0] = 61.0
    await target.write([event(3)], after(3), bury)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.jsonl"))
    assert names == [f"log-{seq:020d}.jsonl" for seq in (1, 2, 3)]


async def test_what_is_not_json_is_buried(make, tmp_path):
    buried = []

    async def take(rejected):
        buried.extend(rejected)

    target = await owned(await make())
    assert await target.write([event(1, b"{"), event(2)], after(2), take) == 1
    assert [each.event.stream_seq for each in buried] == [1]
    assert [line["stream_seq"] for line in lines(tmp_path)] == [2]


async def test_a_damaged_position_is_refused(make, tmp_path):
    target = await owned(await make())
    await target.close()
    (tmp_path / "out" / "position.json").write_text("{")
    with pytest.raises(TargetRefused, match="damaged"):
        await (await make()).claim()


async def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    sink = FilesSink.model_validate(
        {"name": "log", "kind": "files", "directory": tmp_path / "file" / "out"}
    )
    with pytest.raises(TargetRefused, match="Not a directory"):
        await FilesTarget(sink).open()

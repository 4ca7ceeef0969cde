"""What is long goes in pieces, so that others have their turns. Counted, not timed."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from raw import command
from threadis import _core
from threadis.coordinator.base.offload import LARGE, PIECE, slice_bytes
from threadis.coordinator.blocking.serve import BlockedClients
from threadis.coordinator.instances import fenced, long_replies, script_monitor
from threadis.coordinator.instances.links import ANONYMOUS, Kind, Limits, Link, Words
from threadis.coordinator.instances.packed import WRITE_MOST, pack
from threadis.coordinator.multikey.copy_run import CopyRun
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.records import PreparedRecord

LONG = os.urandom(PIECE) * 2 + b"the end"


@given(st.lists(st.lists(st.sampled_from([b"", b"x", b"y" * 70_000]), min_size=1), max_size=4))
def test_what_is_packed_is_what_instances_take(commands: list[list[bytes]]) -> None:
    flat = b"".join(command(*words) for words in commands)
    packed = _core.Packed(commands, b"head")
    assert bytes(packed) == b"head" + flat
    assert pack(*commands) == flat
    assert len(packed) == len(flat) + 4
    parts = [packed.part(at, 999) for at in range(0, len(packed), 999)]
    assert b"".join(parts) == bytes(packed)
    inside = _core.Packed([[b"SET", packed]])
    assert bytes(inside) == command(b"SET", bytes(packed))


def test_a_record_with_long_values_is_read_again() -> None:
    record = PreparedRecord(1, 3, [(3, b"key", True)], [[b"SET", b"key", LONG], [b"DEL", b"x"]])
    assert PreparedRecord.decode(bytes(record.encode())) == record


async def turns_during(job: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """What a job comes to, and how often others had their turn meanwhile."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    try:
        return await job, turns
    finally:
        task.cancel()


def test_long_replies_are_read_while_others_have_their_turns() -> None:
    value = LONG * 8
    reply = b"*2\r\n$1\r\nx\r\n$%d\r\n%s\r\n" % (len(value), value)
    found, turns = asyncio.run(turns_during(long_replies.value(reply)))
    assert found == [b"x", value]
    assert turns >= 2 * len(value) // PIECE  # the element, and its content
    found, turns = asyncio.run(turns_during(slice_bytes(value, 1, len(value) - 1)))
    assert found == value[1:-1]
    assert turns >= len(value) // PIECE


def test_the_replies_of_a_block_are_read_while_others_have_their_turns() -> None:
    count = 20 * LARGE

    async def receive() -> tuple[list[fenced.FencedReplies], int]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"+OK\r\n" + b"+QUEUED\r\n" * count + b"*%d\r\n" % count)
        reader.feed_data(b"$2\r\nxy\r\n" * count)
        link: Any = SimpleNamespace(reader=reader, index=0)
        block = fenced.FencedBlock([[b"GET", b"key"]] * count)
        return cast(
            "tuple[list[fenced.FencedReplies], int]", await turns_during(block.receive(link))
        )

    found, turns = asyncio.run(receive())
    assert [one.reply for one in found] == [b"$2\r\nxy\r\n"] * count
    assert turns > count // LARGE  # in the replies of MULTI, and in those of EXEC


def test_only_who_still_waits_is_served_when_keys_are_watched() -> None:
    """A task for each of 100,000 keys of a client that is gone held everybody up."""
    places = [(0, b"%d" % number) for number in range(100)]
    served: list[Any] = []

    class Watch:
        async def arm(self, asked: list[Any]) -> list[Any]:
            waiting.difference_update(asked[1:])  # whoever waited for them has gone
            return asked

    waiting = set(places)
    blocked: Any = SimpleNamespace(waiters=waiting, changed=served.extend)
    key_watch: Any = Watch()
    asyncio.run(BlockedClients._arm(blocked, key_watch, places))  # what its task runs
    assert served == places[:1]


def test_what_is_long_comes_in_pieces() -> None:
    replies = _core.Replies()
    replies.feed(b":1\r\n$%d\r\n%s\r\n+OK" % (len(LONG), LONG))
    replies.feed(b"\r\n")
    assert replies.next() == b":1\r\n"
    found = replies.next()
    assert isinstance(found, _core.Pieces)
    pieces = list(found)
    assert max(map(len, pieces)) <= PIECE
    assert b"".join(pieces) == b"$%d\r\n%s\r\n" % (len(LONG), LONG)
    assert replies.take(2) == [b"+OK\r\n"]
    assert len(replies) == 0


def test_what_comes_before_a_mark_is_found_however_it_comes() -> None:
    text = b"ab\r" * 5
    for size in range(1, 8):
        replies = _core.Replies()
        stream = text + b"\r\nmark" + b"+behind\r\n"
        found = None
        for at in range(0, len(stream), size):
            replies.feed(stream[at : at + size])
            found = found or replies.until(b"\r\nmark")
        assert found == text
        assert replies.next() == b"+behind\r\n"


def test_a_long_command_is_sent_piece_by_piece(tmp_path: Path) -> None:
    """So it is not copied as a whole, and is dropped with a connection that is given up."""
    path = str(tmp_path / "s")
    words = [b"SET", b"key", LONG * 8]
    received, gone = bytearray(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(received) < len(command(*words)):
            received.extend(await reader.read(PIECE))
        writer.write(b"+OK\r\n")
        await reader.read()
        writer.close()
        gone.set()

    async def send() -> None:
        server = await asyncio.start_unix_server(answer, path)
        async with server:
            reader, writer = await asyncio.open_unix_connection(path)
            link = Link(Limits(), 0, Kind(user=ANONYMOUS), path, os.getpid(), reader, writer)
            link.send(words)
            assert writer.transport.get_write_buffer_size() <= WRITE_MOST
            assert not link.is_reusable()
            reply, turns = await turns_during(link.receive(1))
            assert reply == [b"+OK\r\n"]
            assert turns >= len(LONG) * 8 // WRITE_MOST // 2
            assert link.is_reusable()
            writer.close()
            await gone.wait()

    asyncio.run(asyncio.wait_for(send(), 60))
    assert received == command(*words)


def test_what_a_script_has_run_is_read_while_others_have_their_turns() -> None:
    count = 50 * script_monitor.TURN

    async def look() -> list[list[tuple[int, Words]]]:
        reader = asyncio.StreamReader()
        seen = script_monitor.MonitoredRun(SimpleNamespace(reader=reader, index=0))  # type: ignore[arg-type]
        marks = (b'+1.5 [0 lua] "ECHO" "%s"\r\n' % one[1] for one in (seen.before, seen.after))
        lines = (b'+1.5 [17 lua] "set" "%d" "v"\r\n' % number for number in range(count))
        reader.feed_data(next(marks) + b"".join(lines) + next(marks))
        return await seen.commands()

    found, turns = asyncio.run(turns_during(look()))
    assert found == [[(17, [b"set", b"%d" % number, b"v"]) for number in range(count)]]
    assert turns >= 2 * count // script_monitor.TURN  # the lines, and the words in them


def test_very_many_commands_are_sent_and_answered_piece_by_piece(tmp_path: Path) -> None:
    path, count = str(tmp_path / "s"), 20 * LARGE
    asked = [[b"ECHO", b"%d" % number] for number in range(count)]
    sent = b"".join(command(*words) for words in asked)
    received = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(received) < len(sent):
            received.extend(await reader.read(PIECE))
        writer.write(b":1\r\n" * count)
        writer.close()

    async def send() -> None:
        server = await asyncio.start_unix_server(answer, path)
        async with server:
            reader, writer = await asyncio.open_unix_connection(path)
            link = Link(Limits(), 0, Kind(user=ANONYMOUS), path, os.getpid(), reader, writer)
            link.send(*asked)
            assert not link.is_reusable()
            replies, turns = await turns_during(link.receive(count))
            assert replies == [b":1\r\n"] * count
            assert turns >= 2 * count // LARGE - 2  # the commands, and the replies
            writer.close()

    asyncio.run(asyncio.wait_for(send(), 60))
    assert received == sent


def test_very_many_missing_keys_are_lent_while_others_have_their_turns() -> None:
    missing, lent = {b"%d" % number for number in range(10 * LARGE)}, set[bytes]()

    async def fetch() -> None:
        pass

    async def tell(home: int, *, asks: bool) -> tuple[None, None]:
        del home, asks
        return None, None

    run: Any = SimpleNamespace(
        _pieces=(),
        _execution=None,
        _lents={},
        _scripts=None,
        missing={0: missing},
        _fetch=fetch,
        _choose_borrower=int,
        _run_on_copies=tell,
        lend=lambda keys, _: lent.update(keys),
    )
    lock: Any = SimpleNamespace(everything=False)
    found, turns = asyncio.run(turns_during(CopyRun.attempt(run, lock)))
    assert found is None
    assert lent == missing
    assert turns > 0


def test_very_many_writes_are_marked_while_others_have_their_turns() -> None:
    part = [[b"DEL", b"%d" % number] for number in range(10 * LARGE)]

    async def run(parts: dict[int, list[Words]], *_: Any, **__: Any) -> dict[int, list[bytes]]:
        return {index: [b":1\r\n"] * len(one) for index, one in parts.items()}

    execution: Any = SimpleNamespace(
        tracking=SimpleNamespace(is_on=False), commits=SimpleNamespace(run=run)
    )
    lock: Any = None
    found, turns = asyncio.run(turns_during(Execution.commit(execution, {1: part}, lock, 0)))
    assert found == {1: [b":1\r\n"] * len(part)}
    assert turns > 0

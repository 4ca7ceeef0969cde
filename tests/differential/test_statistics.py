"""What INFO counts: commands and errors once for each command of a client, and nothing of ours."""

import re

from differential.pair import Both, Pair
from differential.test_events import COMMANDS, words_of
from differential.wire import Connection, pack

ORDINARY = """
SET k:1 v; GET k:1; GET k:none; SET k:1; LPUSH k:1 x; INCR k:1; NOSUCH; CONFIG NOSUCH; CLIENT ID
MSET k:1 1 k:2 2 k:3 3 k:4 4; MGET k:1 k:2 k:3 k:4 k:5; DEL k:1 k:2 k:3; EXISTS k:1 k:4
RENAME k:4 k:5; RENAME k:none k:6; SADD s:1 a; SADD s:2 b; SUNIONSTORE s:3 s:1 s:2; SINTER s:1 k:5
SORT s:1 BY w_* GET #; PING; ECHO; SELECT 99; SELECT 0; DBSIZE; SCAN 0; SCAN x; TIME; AUTH k
CONFIG GET port; CONFIG SET nosuch 1; OBJECT ENCODING k:5; OBJECT ENCODING; EXPIRE k:5 x
BITFIELD k:5 SET u8 x 1; XADD st * a 1; XGROUP CREATECONSUMER st none c; XREAD STREAMS st 0
MULTI; SET k:1 a; SET k:2 b; LPUSH k:1 x; GET; EXEC; MULTI; SET k:1 a; LPUSH k:1 x; EXEC; EXEC
MULTI; SET k:1 a; SET k:2 b; LPUSH k:2 x; CLIENT ID; EXEC; DISCARD; MULTI; GET k:1; DISCARD
MULTI; SET {a}1 x; LPUSH {a}1 x; GET {a}1; EXEC; MULTI; MULTI; EXEC; WATCH k:1; UNWATCH; WATCH k:1
SET k:1 c; MULTI; GET k:1; EXEC; FLUSHDB; RANDOMKEY; SLOWLOG LEN; EXEC x
"""
CHANGES = b"rdb_changes_since_last_save:"
VOLATILE = re.compile(rb"usec(_per_call)?=[0-9.]+,")


def counts(connection: Connection, *sections: str) -> list[bytes]:
    """The lines of INFO, times left out, in order of their names."""
    lines = b"\n".join(connection.ask("INFO", one).text for one in sections).split()
    return sorted(VOLATILE.sub(b"", line) for line in lines if b"_" in line)


def same_counts(both: Both) -> None:
    sections = ("commandstats", "errorstats")
    assert counts(both.ours, *sections) == counts(both.bare, *sections)
    for name in (b"total_commands_processed", b"total_error_replies"):
        found = [
            next(line for line in side.ask("INFO", "stats").text.split() if line.startswith(name))
            for side in (both.bare, both.ours)
        ]
        assert found[0] == found[1]


def test_every_command_counts_once(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("CONFIG", "RESETSTAT")
        same_counts(both)
        for line in re.split(r"[;\n]", ORDINARY.strip()):
            words = line.split()
            for side in (both.bare, both.ours):
                side.ask(*words)
        same_counts(both)
        both.same("CONFIG", "RESETSTAT")
        same_counts(both)


def test_what_we_read_for_ourselves_is_no_hit_and_no_miss(pair: Pair) -> None:
    field = re.compile(rb"keyspace_(?:hits|misses):\d+")

    def found(connection: Connection) -> list[bytes]:
        return field.findall(connection.ask("INFO", "stats").text)

    # A script that is run again, or undone, reads again.
    lines = [line for line in COMMANDS if not line.startswith("EVAL")]
    more = ["RPUSH A 1 2", "MSET w_1 2 w_2 1", "SORT A BY w_* GET w_*", "XADD C 1-1 f v"]
    more += ["XREAD STREAMS C none 0 0", "XREAD BLOCK 1 STREAMS C none $ $", "WATCH A B", "UNWATCH"]
    more += ["XGROUP CREATE C g 0", "XREADGROUP GROUP g c STREAMS C none > >", "TOUCH A B none"]
    with pair.both() as both:
        both.same("CONFIG", "RESETSTAT")
        for line in [*lines, *more]:
            for part in line.split(" ; "):
                for side in (both.bare, both.ours):
                    side.ask(*words_of(part))
            assert found(both.ours) == found(both.bare), line
        both.same("CONFIG", "RESETSTAT")
        assert found(both.ours) == found(both.bare)


def test_an_exec_that_is_refused_says_why_and_ends_what_was_watched(pair: Pair) -> None:
    lines = """
    WATCH k; EXEC x; SET k 1; MULTI; GET k; EXEC; WATCH k; MULTI; SET k 2; EXEC x; EXEC; SET k 3
    WATCH k; MULTI; NOSUCH; EXEC x; MULTI; NOSUCH; EXEC x; EXEC x; WATCH k; SUBSCRIBE c; EXEC; GET k
    EXEC; RESET; SET k 4; WATCH k k:2 k:3; EXEC x; SET k:2 5; MULTI; GET k; GET k:3; EXEC; WATCH k
    MULTI; SUBSCRIBE c; EXEC; EXEC; RESET; SET k 6; WATCH k; SET k 7; EXEC x; WATCH k; MULTI; EXEC
    """
    with pair.both() as both:
        both.same("CONFIG", "RESETSTAT")
        for line in re.split(r"[;\n]", lines.strip()):
            both.same(*line.split())
        same_counts(both)


def test_pipelines_count_as_well(pair: Pair) -> None:
    data = b"".join(pack("LPUSH" if n % 10 == 0 else "SET", f"p:{n % 10}", "v") for n in range(500))
    with pair.both() as both:
        both.same("CONFIG", "RESETSTAT")
        both.same_bytes(pack("SET", "p:0", "v") + data, 501)
        same_counts(both)


def test_a_command_without_memory_is_rejected(pair: Pair) -> None:
    with pair.both() as both:
        both.same("CONFIG", "SET", "maxmemory", 1)
        try:
            both.same("CONFIG", "RESETSTAT")
            both.same("SET", "k", "v")
            both.same("GET", "k")
            same_counts(both)
        finally:
            both.same("CONFIG", "SET", "maxmemory", 0)


def test_errors_of_invented_kinds_are_limited(pair: Pair) -> None:
    with pair.both() as both:
        both.same("CONFIG", "RESETSTAT")
        for number in range(300):
            both.ours.ask("EVAL", f"return redis.error_reply('K{number} no')", 0)
        lines = counts(both.ours, "errorstats")
        assert len(lines) <= 260, lines  # 128 for each worker, at most
        total = sum(int(line.rpartition(b"=")[2]) for line in lines)
        assert total == 300


def test_our_databases_are_not_shown(pair: Pair) -> None:
    with pair.both() as both:
        for number in range(40):
            for command in (("SET", f"a:{number}", "v"), ("MSET", f"a:{number}", 1, "b", 2)):
                both.same(*command)
        both.same_all([[b"INFO", b"keyspace"]], how="shape")
        shown = both.ours.ask("INFO", "keyspace").text
        assert set(re.findall(rb"^db(\d+)", shown, re.MULTILINE)) == {b"0"}


def test_what_is_cleaned_up_later_counts_as_no_change(pair: Pair) -> None:
    """A write to several instances leaves records; INFO does not see them go."""
    field = re.compile(rb"rdb_changes_since_last_save:(\d+)")

    def changes() -> int:
        found = field.search(connection.ask("INFO", "persistence").text)
        assert found
        return int(found[1])

    connection = pair.ours()
    for number in range(20):
        connection.ask("MSET", *(word for n in range(20) for word in (f"many:{n}", number)))
        before = changes()
        while changes() - before < 30:  # until some records would have been deleted
            last = changes()
            connection.ask("SET", "one", "1")
            assert changes() == last + 1
    connection.close()


def changes(side: Connection) -> int:
    """How often data has changed since the last save."""
    lines = side.ask("INFO", "persistence").text.split()
    return next(int(line.split(b":")[1]) for line in lines if line.startswith(CHANGES))


def test_our_records_are_no_changes(pair: Pair) -> None:
    with pair.both() as client:
        for _ in "12":  # the second time behind a save
            before = [changes(side) for side in (client.bare, client.ours)]
            for line in (
                "MSET a 1 b 2 c 3 d 4", "MSETNX a 1 b 2", "MSETNX e 1 f 2 g 3", "DEL a b e",
                "SET a 1", "UNLINK c d x", "MULTI", "SET a 2", "SET b 2", "INCR c", "EXEC",
            ):  # fmt: skip
                client.same_line(line)
            after = [changes(side) for side in (client.bare, client.ours)]
            assert after[1] - before[1] == after[0] - before[0]
            client.same("SAVE")
            assert [changes(side) for side in (client.bare, client.ours)] == [0, 0]
            client.same("FLUSHDB")

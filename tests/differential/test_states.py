"""What a session refuses in each of its states: every command, with too few, enough and too many
arguments, beside the stock server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from conftest import Threadis
from differential.pair import Both, Pair
from differential.wire import Connection, Reply

PASSWORD: Final = "a secret word"
CHANGES_STATE: Final = frozenset({"auth", "hello", "reset", "quit", "monitor", "sync", "psync"})
OF_SUBSCRIBERS: Final = frozenset(
    {f"{kind}{what}" for kind in ("", "p", "s") for what in ("subscribe", "unsubscribe")}
) | {"ping"}  # fmt: skip
OF_TRANSACTIONS: Final = frozenset({"multi", "exec", "discard", "watch", "unwatch"})
REFUSED: Final = frozenset({"replconf"})  # at once, where the server says QUEUED
UNKNOWN: Final = ["nope", "nope|x", "config|nope", "client|nope", "object|nope"]


def words(name: str, arguments: int) -> list[bytes]:
    """A command with so many arguments behind its name."""
    return [word.encode() for word in name.split("|")] + [b"x"] * arguments


def counts(name: str, arity: int) -> tuple[list[int], list[int]]:
    """How many arguments are wrong, and how many are right."""
    fixed = len(name.split("|"))
    least = abs(arity) - fixed
    wrong = [*range(least), *([least + 1] if arity > 0 else [])]
    return wrong, [least] if arity > 0 else [least, least + 1]


def every(pair: Pair, *, wrong: bool, right: bool, but: frozenset[str]) -> Iterator[list[bytes]]:
    """Every command of the table, as it is called in the wrong and in the right way."""
    for row in pair.rows:
        if row.name.endswith("|*") or row.name in but:
            continue
        few, enough = counts(row.name, row.arity)
        for arguments in (few if wrong else []) + (enough if right else []):
            yield words(row.name, arguments)
    for name in UNKNOWN:
        yield words(name, 0)


def same_errors(both: Both, commands: Iterator[list[bytes]], after: tuple[str, ...] = ()) -> None:
    """Each command has one reply, the same on both sides; and what is asked after it, too."""
    wrong = []
    for command in commands:
        for asked in [command, *([word.encode()] for word in after)]:
            bare, ours = both.bare.ask(*asked), both.ours.ask(*asked)
            if bare.raw != ours.raw:
                wrong.append(f"{command} {asked}: {ours.raw[:200]!r}, not {bare.raw[:200]!r}")
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong)


def test_wrong_arity_and_unknown(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        same_errors(both, every(pair, wrong=True, right=False, but=frozenset({"quit", "reset"})))


@pytest.mark.parametrize("how", ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"])
def test_subscribed(pair: Pair, how: str) -> None:
    with pair.both() as both:
        both.same(how, "x")
        but = OF_SUBSCRIBERS | {"quit", "reset"}
        same_errors(both, every(pair, wrong=True, right=True, but=but))
        both.same("PING")
        both.same("RESET")
        both.same("GET", "x")


def test_subscribed_in_the_new_protocol(pair: Pair) -> None:
    with pair.both(3) as both:
        both.same("SUBSCRIBE", "x")
        same_errors(both, every(pair, wrong=True, right=False, but=frozenset({"quit", "reset"})))


def test_in_a_transaction(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        but = CHANGES_STATE | OF_TRANSACTIONS | REFUSED

        def each() -> Iterator[list[bytes]]:
            for command in every(pair, wrong=True, right=True, but=but):
                both.same("MULTI")
                yield command

        same_errors(both, each(), after=("DISCARD",))


def test_a_spoiled_transaction(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:

        def each() -> Iterator[list[bytes]]:
            but = CHANGES_STATE | {"exec", "discard"}
            for command in every(pair, wrong=True, right=False, but=but):
                both.same("MULTI")
                yield command

        same_errors(both, each(), after=("EXEC",))


def test_in_a_script(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        noscript = {
            entry.elements[0].text.decode()
            for entry in every_entry(both.bare)
            if b"noscript" in {flag.text for flag in entry.elements[2].elements}
        }

        def each() -> Iterator[list[bytes]]:
            script = [b"EVAL", b"return redis.pcall(unpack(ARGV))", b"0"]
            for command in every(pair, wrong=True, right=False, but=frozenset()):
                yield script + command
            for row in pair.rows:
                if row.name in noscript:
                    yield script + words(row.name, counts(row.name, row.arity)[1][-1])

        same_errors(both, each())


def every_entry(connection: Connection) -> Iterator[Reply]:
    """COMMAND's entries, with those of subcommands."""
    todo = list(connection.ask("COMMAND").elements)
    while todo:
        entry = todo.pop()
        yield entry
        todo.extend(entry.elements[9].elements)


def test_without_rights(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both, pair.both() as admin:
        admin.same("ACL", "SETUSER", "nobody", "on", "nopass")
        both.same("AUTH", "nobody", "any")
        but = frozenset({"auth", "hello", "reset", "quit"})
        same_errors(both, every(pair, wrong=True, right=True, but=but))
        both.same("RESET")
        admin.same("ACL", "DELUSER", "nobody")


def test_unauthenticated(pair: Pair, locked: Threadis) -> None:
    setting = Connection(pair.bare)
    assert setting.ask("CONFIG", "SET", "requirepass", PASSWORD).raw == b"+OK\r\n"
    try:
        bare, ours = Connection(pair.bare), Connection(("127.0.0.1", locked.port))
        with Both(bare, ours, 2, pair.tips) as both:
            but = frozenset({"auth", "hello", "reset", "quit"})
            same_errors(both, every(pair, wrong=True, right=True, but=but))
    finally:
        setting.ask("CONFIG", "SET", "requirepass", "")
        setting.close()


@pytest.fixture
def locked(pair: Pair, tmp_path: Path, threadis: Callable[..., Threadis]) -> Threadis:
    """thREaDIS with a password, over the same binary."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return threadis(
        "--server", pair.server.path, "--instances", "2", "--workers", "1", "--save", "",
        "--requirepass-file", str(tmp_path / "password"),
    )  # fmt: skip


CURSORS: Final = [
    "-1", "+0", "+1", " 0", "\t0", "0 ", "00", "", "-", "+", "x", "0x10", "18446744073709551615",
    "18446744073709551616", "-18446744073709551616", "9223372036854775808", "-9223372036854775809",
    "-9223372036854775808", "0\0", "0\0x", "-0", "\0", "1e3", "9" * 30, "72057594037927936",
]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("COUNT", "x"), ("COUNT",), ("MATCH", "*", "COUNT", 1000)])
def test_cursors(pair: Pair, protocol: int, options: tuple[str | int, ...]) -> None:
    """What a server takes for a cursor: no keys, so nothing is left of what it means."""
    with pair.both(protocol) as both:
        for cursor in CURSORS:
            bare, ours = (side.ask("SCAN", cursor, *options) for side in (both.bare, both.ours))
            if cursor.lstrip("+") == "1" and not ours.is_error:
                continue  # of one of our instances, not of the bare server
            assert ours.raw == bare.raw, cursor


def test_a_scan_begins_with_any_zero(pair: Pair) -> None:
    with pair.both() as both:
        for number in range(200):
            both.same("SET", f"key:{number}", 1)
        for zero in ("0", "+0", "00", "-0"):
            found: set[bytes] = set()
            cursor = zero.encode()
            while True:
                reply = both.ours.ask("SCAN", cursor)
                cursor = reply.elements[0].text
                found.update(key.text for key in reply.elements[1].elements)
                if cursor == b"0":
                    break
            assert len(found) == 200


@pytest.mark.parametrize("cursor", ["0", "+0", "1", "x", "-1"])
def test_scan_needs_its_right(pair: Pair, protocol: int, cursor: str) -> None:
    with pair.both(protocol) as both, pair.both() as admin:
        admin.same("MSET", "a", 1, "b", 2, "c", 3)
        admin.same("ACL", "SETUSER", "nobody", "on", "nopass", "~*", "+get")
        both.same("AUTH", "nobody", "any")
        both.same("SCAN", cursor)
        both.same("MULTI")
        both.same("SCAN", cursor)
        both.same("EXEC")
        admin.same("ACL", "DELUSER", "nobody")


def test_a_transaction_with_what_no_option_allows_is_refused(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for command in (("DEBUG", "SLEEP", 0), ("MODULE", "LOAD", "x"), ("MODULE", "UNLOAD", "x")):
            both.same("MULTI")
            both.same("SET", "k", "v")
            both.same(*command)
            both.same("EXEC")
            both.same("EXISTS", "k")


def test_what_is_for_clusters_and_debuggers(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in (
            "CLUSTERSCAN 0", "CLUSTERSCAN", "CLUSTERSCAN x SLOT 1", "SCRIPT DEBUG NO", "ROLE",
            "SCRIPT DEBUG no", "SCRIPT DEBUG x", "SCRIPT DEBUG", "MULTI", "SCRIPT DEBUG NO",
            "CLUSTERSCAN 0", "EXEC",
        ):  # fmt: skip
            both.same_line(line)
        refused = both.ours.ask("SCRIPT", "DEBUG", "YES").text
        assert refused == b"ERR threadis: the script debugger is not supported"


def test_info_shows_databases_in_order_and_what_is_listened_on(pair: Pair) -> None:
    with pair.both() as both:
        for db in (11, 3, 9, 0, 10):
            both.same("SELECT", db)
            for number in range(db):
                both.same("SET", f"k{number}", 1)
        both.same("SET", "one", 1)
        names = [fields(side, "keyspace") for side in (both.bare, both.ours)]
        assert list(names[1].items()) == list(names[0].items())
        bare, ours = (fields(side, "server") for side in (both.bare, both.ours))
        assert [name for name in ours if not name.startswith("listener")] == [
            name for name in bare if not name.startswith("listener")
        ]
        listeners = {name: ours[name] for name in ours if name.startswith("listener")}
        has_listeners = any(name.startswith("listener") for name in bare)
        tcp = f"name=tcp,bind=127.0.0.1,port={pair.threadis.port}"
        assert listeners == ({"listener0": tcp} if has_listeners else {})


def fields(connection: Connection, section: str) -> dict[str, str]:
    """A section of INFO."""
    lines = connection.ask("INFO", section).text.decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)

"""Calls made from the server's own documentation: each reply is the bare server's."""

import zlib

import hiredis
import pytest

from differential import variants
from differential.pair import Both, Pair
from differential.wire import Connection
from threadis.catalog.blocking import BLOCKING
from threadis.catalog.commands import Row

# Commands whose calls change the session, or all of the server, or that have no fixed answer.
# Each is tested by hand elsewhere in this folder.
BY_HAND = {"quit", "reset", "hello", "auth", "select", "config|set", "client|list", "client|info"}
BY_HAND |= {"client|id", "info", "scan", "cluster", "lolwut", "randomkey", "acl|cat", "acl|genpass"}
# Tested in test_administration.py and test_debug.py; calls of them change the server.
BY_HAND |= {
    f"{log}|{name}" for log in ("slowlog", "commandlog") for name in ("get", "len", "reset")
}
BY_HAND |= {"save", "bgsave", "bgrewriteaof", "lastsave", "replicaof", "slaveof", "wait", "debug"}
BY_HAND |= {"memory|doctor", "memory|malloc-stats", "latency|doctor", "latency|histogram"}
BY_HAND |= {"memory|stats", "shutdown", "module"}  # in test_administration.py
BY_HAND |= {"config|rewrite"}  # in test_kept.py
BY_HAND |= {"script|debug"}  # in test_states.py: a bare server would wait for its debugger
BY_HAND |= set(BLOCKING)  # in test_blocking.py: they block
BY_HAND |= {"multi", "exec", "discard", "watch", "unwatch"}  # in test_transactions.py
BY_HAND |= {"function|list"}  # Valkey answers a NUL with a reply that cannot be read
BY_HAND |= {"monitor", "client|reply", "client|pause", "client|kill", "acl"}  # tests of their own
BY_HAND |= {"migrate", "waitaof"}  # in test_administration.py: they wait
BY_HAND |= {"client|tracking"}  # in test_tracking.py: invalidations come among the replies

# Replies that differ from the bare server's on purpose: beginning of ours, and the reason.
DIFFERENCES = {
    b"-ERR Client names cannot contain": "Valkey takes a NUL, which CLIENT LIST cannot show",
    b"-ERR LIB-NAME cannot contain": "the same",
}

UNKNOWN: list[list[bytes]] = [
    [b"NOPE"],
    [b"nope", b"a", b"b"],
    [b"no\r\npe", b"a\r\nb", b"c\nd"],
    [b"no\x00pe", b"a\x00b"],
    [b""],
    [b"", b"a"],
    [b"n" * 1000, b"a" * 1000],
    [b"nope", b"a" * 127, b"b"],
    [b"nope", b"a" * 126, b"b"],
    [b"nope", *[b"word"] * 100],
    [b"nope", b"\xff\xfe", b"'quoted'", b'"quoted"'],
    [b"client|id"],
    [b"config|get", b"*"],
    [b"get ", b"a"],
    [b" get", b"a"],
]


def differs_on_purpose(reply: bytes) -> bool:
    """Whether a reply that is not the bare server's is on the list."""
    return any(reply.startswith(known) for known in DIFFERENCES)


def documentation(pair: Pair) -> dict[str, variants.Docs]:
    """What the bare server documents, subcommands by their full names."""
    connection = Connection(pair.bare)
    connection.ask("HELLO", 3)
    reader = hiredis.Reader()
    reader.feed(connection.ask("COMMAND", "DOCS").raw)
    connection.close()
    found: dict[str, variants.Docs] = {}
    for name, known in variants.docs(reader.gets()).items():
        found[name] = known
        found.update(known.get("subcommands", {}))
    return found


def compare(pair: Pair, both: Both, calls: list[list[bytes]]) -> list[str]:
    """What is wrong with the replies to some calls."""
    bare, ours = both.bare.ask_all(calls), both.ours.ask_all(calls)
    return [
        f"{call!r}\n  expected {theirs.raw[:300]!r}\n  got {got.raw[:300]!r}"
        for call, theirs, got in zip(calls, bare, ours, strict=True)
        if both.differ(call, theirs, got) and not differs_on_purpose(got.raw)
    ]


def families(pair: Pair) -> dict[str, list[Row]]:
    """The supported commands, subcommands with their parents."""
    found: dict[str, list[Row]] = {}
    for row in pair.supported():
        if row.name.endswith("subscribe"):
            continue  # as many replies as channels: see test_pubsub.py
        if row.name not in BY_HAND and row.name.split("|")[0] not in BY_HAND:
            found.setdefault(row.name.split("|")[0], []).append(row)
    return found


def test_every_documented_call(pair: Pair, protocol: int) -> None:
    known, wrong, count = documentation(pair), [], 0
    with pair.both(protocol) as both:
        for rows in families(pair).values():
            for row in rows:
                name = [word.encode().upper() for word in row.name.split("|")]
                calls = variants.calls(name, known.get(row.name, {}), row.arity)
                for piece in variants.pieces(calls, 20):
                    wrong.extend(compare(pair, both, piece))
                    count += len(piece)
    assert not wrong, f"{len(wrong)} of {count} differ:\n" + "\n".join(wrong[:60])
    assert count > 10_000


def test_unknown_commands(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same_all(UNKNOWN)
        both.same("PING")


def test_unknown_subcommands(pair: Pair, protocol: int) -> None:
    parents = {row.name.split("|")[0] for row in pair.rows if "|" in row.name} - {"debug"}
    with pair.both(protocol) as both:
        for parent in sorted(parents):
            for sub in (b"NOPE", b"", b"no\r\npe", b"x" * 300, b"\xff", b"get|x"):
                both.same(parent, sub)
                both.same(parent, sub, "a", "b")
            both.same(parent)
            both.same(parent, "HELP")
            both.same(parent, "help", "me")
        both.same("PING")


def test_what_is_refused_says_so_and_the_connection_stays_usable(pair: Pair, protocol: int) -> None:
    connection = pair.ours()
    if protocol == 3:
        connection.ask("HELLO", 3)
    refused = [row for row in pair.rows if row.route == "refuse" and not row.name.endswith("|*")]
    parents = {row.name.split("|")[0] for row in pair.rows if "|" in row.name}
    count = 0
    for row in refused:
        words = row.name.upper().split("|")
        if row.name in parents:
            continue  # without a subcommand: the wrong number of arguments
        arguments = ["a"] * (abs(row.arity) - len(words))
        reply = connection.ask(*words, *arguments)
        text = f"-ERR threadis: {' '.join(words)} is not "  # supported yet, or possible
        assert reply.raw.decode().startswith(text), row
        count += 1
        assert connection.ask("PING").raw == b"+PONG\r\n"
    connection.close()
    assert count


@pytest.mark.parametrize("seed", range(3))
def test_any_case_of_a_name(pair: Pair, seed: int) -> None:
    with pair.both() as both:
        for row in pair.supported():
            if row.route != "keys" or "|" in row.name:
                continue
            bits = zlib.crc32(f"{seed}{row.name}".encode())
            letters = [
                letter.upper() if bits >> (at % 32) & 1 else letter
                for at, letter in enumerate(row.name)
            ]
            both.same("".join(letters))
            both.same("".join(letters), "{g}", "{g}", how="shape")

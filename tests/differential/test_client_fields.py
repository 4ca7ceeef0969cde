"""CLIENT LIST and CLIENT INFO: every field that is not of the process or of its sockets."""

import contextlib
import re
from functools import partial
from typing import Final

from differential.pair import Both, Pair
from differential.wire import Connection, pack
from waiting import until

# Sizes of buffers and numbers of sockets are the process's, ages the clock's; replies to INFO and
# the like are as long as they are.
OWN: Final = frozenset([
    "id", "addr", "laddr", "fd", "age", "idle", "qbuf", "qbuf-free", "argv-mem", "multi-mem", "rbs",
    "rbp", "obl", "oll", "omem", "tot-mem", "events", "tot-net-in", "tot-net-out",
])  # fmt: skip
STATES: Final = [
    "WATCH dirty;MULTI;GET a",
    "", "GET a", "NOSUCH", "SET a", "CLIENT NOSUCH", "SELECT 3", "PING;PING;PING", "MGET a b c d",
    "MULTI", "MULTI;SET a b", "MULTI;SET a b;MGET a b c", "MULTI;SET a", "MULTI;NOSUCH",
    "MULTI;SET a;SET a b", "MULTI;SET a b;NOSUCH", "MULTI;SET a b;SET a;SET a b",
    "MULTI;MULTI", "MULTI;SELECT 5;SELECT 6", "MULTI;EXEC", "MULTI;SET x1 b;EXEC",
    "MULTI;SET x1 b;SET x2 c;SET x3 d;SET x4 e;EXEC", "MULTI;SET a;EXEC", "MULTI;SET a b;DISCARD",
    "MULTI;SET x1 b;SET x2 v;SET x3 v;INFO;EXEC", "MULTI;SET x1 b;SELECT 2;EXEC",
    "MULTI;SET x1 b;SELECT 2;INFO;SET x3 d;EXEC", "MULTI;SUNION x5 x6 x7;LCS x8 x9;EXEC",
    "WATCH a", "WATCH a b c d e", "WATCH a a b;WATCH a", "WATCH a;MULTI", "WATCH a b;MULTI;GET a",
    "WATCH a b;MULTI;SET x1 b;EXEC", "WATCH a;MULTI;GET a;DISCARD", "WATCH a b;UNWATCH", "UNWATCH",
    "WATCH a;SELECT 2;WATCH a", "WATCH a dirty", "SELECT 1;CLIENT NO-EVICT ON;WATCH a;MULTI;RESET",
    "> BLPOP q1 0", "> BLPOP q1 q2 q3 5", "> BLMOVE q1 q2 LEFT LEFT 0", "> BZPOPMIN q1 q2 q3 0",
    "> XREAD BLOCK 0 STREAMS q1 $", "> WAIT 1 0", "SET x1 b;> WAIT 1 0", "MULTI;BLPOP q1 0;EXEC",
    "> WAITAOF 0 1 0", "BLPOP q1 0.01", "SUBSCRIBE x", "PSUBSCRIBE x*", "SSUBSCRIBE x",
    "HELLO 3;SUBSCRIBE x;GET a", "HELLO 3;SUBSCRIBE x;MULTI;GET a", "HELLO 3;SUBSCRIBE x;WATCH a",
    "HELLO 3;SUBSCRIBE x;> BLPOP q1 0", "> MONITOR", "SELECT 2;> MONITOR",
    "HELLO 3;CLIENT TRACKING ON", "HELLO 3;CLIENT TRACKING ON;> BLPOP q1 0",
    "HELLO 3;CLIENT TRACKING ON NOLOOP;WATCH a;MULTI;GET a", "CLIENT TRACKING ON",
    "HELLO 3;CLIENT TRACKING ON BCAST PREFIX x", "HELLO 3;CLIENT TRACKING ON;CLIENT TRACKING OFF",
    "HELLO 3;CLIENT TRACKING ON OPTIN;CLIENT CACHING YES",
    "CLIENT NO-EVICT ON", "CLIENT NO-TOUCH ON", "CLIENT NO-EVICT ON;CLIENT NO-TOUCH ON",
    "CLIENT NO-TOUCH ON;CLIENT NO-TOUCH OFF", "CLIENT CAPA redirect", "CLIENT CAPA redirect;RESET",
    "CLIENT SETINFO LIB-NAME foo;CLIENT SETINFO LIB-VER 1.2", "HELLO 3", "HELLO 3;HELLO 2",
    "AUTH bob x", "HELLO 3 AUTH bob x", "AUTH bob x;RESET", "KEYS *", "SCAN 0", "INFO", "DBSIZE",
    "CONFIG GET maxmemory", "CLIENT ID", "CLIENT LIST", "CLIENT INFO", "ACL WHOAMI", "OBJECT HELP",
    "FUNCTION LIST", "UNSUBSCRIBE", "RENAME x8 x9", "SWAPDB 5 6", "LCS x8 x9", "PUBLISH x y",
]  # fmt: skip
LETTERS: Final = "xbdtBPOeT"


def fields(line: str) -> dict[str, str]:
    """A client's line, without what is of the process; the bare server's clients come by a
    Unix socket.
    """
    found = dict(one.split("=", 1) for one in line.removeprefix("txt:").split(" "))
    found["flags"] = found["flags"].replace("U", "") or "N"
    return {name: value for name, value in found.items() if name not in OWN}


def listed(connection: Connection, *filters: str) -> dict[str, dict[str, str]]:
    """All clients with names, by name."""
    text = connection.ask("CLIENT", "LIST", *filters).text.decode()
    found = [fields(line) for line in text.splitlines()]
    return {one["name"]: one for one in found if one["name"]}


def bring_about(connection: Connection, state: str, name: str) -> None:
    """Run the commands of a state; those behind a ">" wait, and are not answered now."""
    for line in [f"CLIENT SETNAME {name}", *filter(None, state.split(";")), ""]:
        if not line:
            break
        words = line.removeprefix("> ").split(" ")
        connection.send(pack(*words))
        if not line.startswith(">"):
            while connection.read().kind == ">" and "SUBSCRIBE" not in line:
                pass
        if words[0] == "RESET":
            connection.ask("CLIENT", "SETNAME", name)


def differences(bare: dict[str, dict[str, str]], ours: dict[str, dict[str, str]]) -> list[str]:
    """What is not the same, in words."""
    names = {str(at): state for at, state in enumerate(STATES)}
    return [
        f"{names.get(name, name)!r} {field}={ours.get(name, {}).get(field)}, expected {value}"
        for name, theirs in bare.items()
        for field, value in theirs.items()
        if ours.get(name, {}).get(field) != value
    ]


def test_a_client_in_every_state(pair: Pair) -> None:
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(pair.both())
        admin.same("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~*", "&*")
        clients = [stack.enter_context(pair.both()) for _ in STATES]
        for at, (both, state) in enumerate(zip(clients, STATES, strict=True)):
            for side in (both.bare, both.ours):
                bring_about(side, state, str(at))
        admin.same("SET", "dirty", 1)

        def wrong() -> list[str]:
            return differences(listed(admin.bare), listed(admin.ours))

        with contextlib.suppress(AssertionError):
            until(lambda: not wrong(), "all are in their state", 3)
        assert wrong() == []
        if "capa" in next(iter(listed(admin.bare).values())):
            for letter in LETTERS:
                for name in ("FLAGS", "NOT-FLAGS"):
                    bare, ours = (listed(side, name, letter) for side in (admin.bare, admin.ours))
                    assert bare.keys() == ours.keys(), (name, letter)
        for both, state in zip(clients, STATES, strict=True):
            if not re.search("^>|;>|SUBSCRIBE|MONITOR", state):
                own(both)
        admin.same("ACL", "DELUSER", "bob")


def own(both: Both) -> None:
    """What a client is told of itself; in a transaction, when that runs."""
    for side in (both.bare, both.ours):
        side.send(pack("CLIENT", "INFO"))
    bare, ours = both.bare.read(), both.ours.read()
    within = bare.text == b"QUEUED"
    if within:
        bare, ours = both.bare.ask("EXEC"), both.ours.ask("EXEC")
        assert bare.kind == ours.kind
        if not bare.elements:
            assert bare == ours
            return
        bare, ours = bare.elements[-1], ours.elements[-1]
    expected, found = (fields(side.text.decode().strip()) for side in (bare, ours))
    if within and "tot-cmds" in expected:  # what the same EXEC has run counts when it ends
        expected["tot-cmds"] = found["tot-cmds"]
    assert found == expected


def test_who_waits_can_be_killed_by_flags(pair: Pair) -> None:
    with pair.both() as admin, pair.both() as waiting, pair.both() as queueing:
        for side in (waiting.bare, waiting.ours):
            side.send(pack("BLPOP", "q1", "q2", 0))
        queueing.same("MULTI")
        for side in (admin.bare, admin.ours):
            until(partial(one_waits, side), "it waits")
        for letter in "bx":
            admin.same("CLIENT", "KILL", "FLAGS", letter)
        if admin.same("CLIENT", "KILL", "FLAGS", "b").kind == ":":
            assert waiting.ours.read_to_end() == waiting.bare.read_to_end() == b""
            assert queueing.ours.read_to_end() == queueing.bare.read_to_end() == b""


def one_waits(connection: Connection) -> bool:
    """Whether INFO tells so."""
    return b"blocked_clients:1\r\n" in connection.ask("INFO", "clients").text

"""ACL users: what they may do, on shared workers and several instances, in the server's words."""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.wire import Connection, Reply

ALICE = (
    "ACL SETUSER alice on >pass ~a* %R~r* &news +@all -@dangerous -@scripting +acl|whoami "
    "+client|list +sort -lpush"
)
BOB = "ACL SETUSER bob on nopass ~b* +@read +@write +select +multi +exec"
WORDS = [
    "ACL WHOAMI", "AUTH alice wrong", "AUTH nobody pass", "AUTH threadis-admin x",
    "AUTH alice pass",
    "ACL WHOAMI", "PING", "SET a1 1", "SET a2 2", "SET b1 1", "GET r1", "SET r1 x", "GET b1",
    "MGET a1 a2 a3 r4 r5", "MGET a1 a2 b1", "MSET a1 x a2 y a3 z a4 w", "MSET a1 no b2 no a3 no",
    "MGET a1 a2 a3 a4", "DEL a1 a2 a3 a4", "DEL a1 b1", "DEL a1 r1", "RENAME a1 r1", "COPY r1 a9",
    "LPUSH a l", "RPUSH alist 3 1 2", "SORT alist", "SORT alist BY b*", "SORT alist GET a*",
    "SORT alist BY nosort", "SINTERSTORE a1 a2 a3", "SINTERSTORE b1 a2 a3", "FLUSHALL",
    "CONFIG GET port", "EVAL 'return 1' 0", "ACL LIST", "CLIENT KILL id 999", "KEYS *", "SELECT 1",
    "SET a1 db1", "SET b1 db1", "SELECT 0", "PUBLISH news x", "PUBLISH other x", "SUBSCRIBE other",
    "MULTI", "SET a1 m1", "SET a2 m2", "EXEC", "MULTI", "SET a1 m3", "SET b1 m3", "EXEC",
    "MULTI", "SET a1 m4", "LPUSH a x", "EXEC", "GET a1", "MULTI", "SET a1 m5", "DISCARD",
    "WATCH a1", "WATCH b1", "MULTI", "SET a1 w", "EXEC", "BLPOP b 1", "BLPOP alist 1", "NOPE",
    "GET", "AUTH bob whatever", "ACL WHOAMI", "GET a1", "SET b1 1", "SET a1 1", "PING", "CLIENT ID",
    "MULTI", "GET b1", "GET a1", "EXEC", "HELLO 2 AUTH alice wrong", "SET b1 still", "SET a1 not",
    "HELLO 2 AUTH threadis-admin x", "AUTH default x", "SET b1 1", "RESET",
]  # fmt: skip


@pytest.fixture
def users(pair: Pair) -> Iterator[Both]:
    """Two users on both servers."""
    with pair.both() as admin:
        admin.same("FLUSHALL")
        admin.same("ACL", "LOG", "RESET")
        for line in (ALICE, BOB):
            admin.same_line(line)
        yield admin
        admin.same("ACL", "DELUSER", "alice", "bob", "carol", how="exact")
        admin.same("ACL", "SETUSER", "default", "on", "nopass")


def test_what_users_may_do(users: Both, pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in WORDS:
            if not (protocol == 3 and ("RESET" in line or "HELLO" in line)):
                both.same_line(f"= {line}")


def test_hello_says_who(users: Both, pair: Pair) -> None:
    ours = pair.ours()
    assert ours.ask("HELLO", 3, "AUTH", "alice", "pass", "SETNAME", "me").kind == "%"
    assert ours.ask("ACL", "WHOAMI").text == b"alice"
    assert ours.ask("SET", "b", 1).text.startswith(b"NOPERM")
    assert b" user=alice " in ours.ask("CLIENT", "LIST").text
    assert ours.ask("HELLO", 2, "AUTH", "default", "").kind == "*"
    assert ours.ask("SET", "b", 1).raw == b"+OK\r\n"
    ours.close()


def test_a_user_that_is_made_anew_just_as_it_was(users: Both) -> None:
    """As those do who provision: its rules are the same before and after."""
    for rules in ("reset on >pass", "resetpass on >pass", "reset on nopass", "reset off >pass on"):
        for _ in range(2):
            users.same("ACL", "SETUSER", "carol", *rules.split(), "~c*", "+@all")
        users.same("AUTH", "carol", "pass")
        for line in ("GET c1", "GET a1", "PING", "MGET c1 c2 c3 c4", "EVAL 'return 1' 1 c1"):
            users.same_line(line)
        users.same("AUTH", "default", "")
        users.same("ACL", "DELUSER", "carol")


def test_permissions_do_not_leak_between_clients(users: Both, pair: Pair) -> None:
    """Many connections of three users on the same workers, taking turns."""
    logins = ("alice", "bob", "default")
    clients: list[tuple[str, Connection]] = []
    for at in range(12):
        clients.append((logins[at % 3], pair.ours()))
        clients[-1][1].ask("AUTH", clients[-1][0], "pass")
    for turn in range(20):
        for name, client in clients:
            for key in (f"a{turn}", f"b{turn}"):
                may = name == "default" or name[0] == key[0]
                assert client.ask("SET", key, turn).is_error != may, (name, key)
                assert client.ask("MSET", key, 1, f"{key}-", 2).is_error != may, (name, key)
            switched = logins[(logins.index(name) + 1) % 3]
            assert client.ask("AUTH", switched, "pass").raw == b"+OK\r\n"
        clients = [(logins[(logins.index(n) + 1) % 3], client) for n, client in clients]
    for _, client in clients:
        client.close()


def test_changes_count_at_once_for_those_who_are_there(users: Both, pair: Pair) -> None:
    with pair.both() as both:
        both.same("AUTH", "alice", "pass")
        both.same("SET", "b1", 1)
        for rules in ("~b*", "resetkeys ~c*", "allkeys allcommands allchannels", "-set", "off"):
            users.same_line(f"ACL SETUSER alice {rules}")
            for words in (
                ("SET", "a1", 1),
                ("SET", "b1", 1),
                ("MGET", "a1", "b1", "c1"),
                ("PING",),
            ):
                both.same(*words)
        both.same("AUTH", "alice", "pass")


def test_deleted_users_are_gone(users: Both, pair: Pair) -> None:
    clients = [pair.ours() for _ in range(4)]
    for client in clients:
        assert client.ask("AUTH", "alice", "pass").raw == b"+OK\r\n"
        assert not client.ask("SET", "a1", 1).is_error
    assert users.ours.ask("ACL", "DELUSER", "nobody", "alice").number == 1
    assert users.bare.ask("ACL", "DELUSER", "nobody", "alice").number == 1
    assert [client.read_to_end() for client in clients] == [b""] * 4
    for client in clients:
        client.close()
    users.same_line(ALICE)
    with pair.both() as both:
        both.same("AUTH", "alice", "pass")
        both.same("SET", "a1", 1)


def test_subscribers_that_may_not_listen_any_more(users: Both, pair: Pair) -> None:
    client = pair.ours()
    client.ask("AUTH", "alice", "pass")
    client.ask("SUBSCRIBE", "news")
    users.same("ACL", "SETUSER", "alice", "&more")
    assert users.ours.ask("PUBLISH", "news", "x").number == 1
    assert client.read().elements[0].text == b"message"
    users.same("ACL", "SETUSER", "alice", "resetchannels")
    assert client.read_to_end() == b""
    client.close()


SHOWN = [
    "ACL LIST", "ACL USERS", "ACL GETUSER alice", "ACL GETUSER bob", "ACL GETUSER default",
    "ACL GETUSER nobody", "ACL GETUSER threadis-admin", "ACL SETUSER carol", "ACL GETUSER carol",
    "ACL SETUSER carol on >a >b <a nopass", "ACL GETUSER carol", "ACL SETUSER carol resetpass",
    "ACL GETUSER carol", "ACL SETUSER carol >c (~x +get) (~y +set)", "ACL GETUSER carol",
    "ACL SETUSER carol <nosuch", "ACL SETUSER carol +nosuch", "ACL SETUSER carol reset",
    "ACL LIST", "ACL DELUSER", "ACL DELUSER default", "ACL DELUSER carol nobody",
    "ACL DELUSER threadis-admin", "ACL USERS", "ACL WHOAMI", "ACL DRYRUN alice GET b",
    "ACL DRYRUN alice GET a", "ACL DRYRUN alice LPUSH a", "ACL DRYRUN alice LPUSH a 1",
    "ACL DRYRUN nobody GET a", "ACL DRYRUN threadis-admin GET a", "ACL DRYRUN alice NOPE",
    "unordered ACL CAT", "unordered ACL CAT read", "ACL CAT nope", "ACL GENPASS x",
    "ACL NOPE",
    "ACL LOG x", "ACL LOG -1", "ACL LOG 0", "ACL LOG RESET", "ACL SETUSER 'a b' on",
]  # fmt: skip


def rules(reply: Reply) -> list[list[bytes]]:
    """What a reply says of users; the order of rules for commands is each process's own."""
    lines = (part.raw.split(b"\r\n", 1) for part in reply.elements)
    return [sorted(re.split(rb"[ \r\n]+", line[-1])) for line in lines]


def test_what_is_shown(users: Both, pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in SHOWN:
            if line.startswith(("ACL LIST", "ACL GETUSER")):
                shown = [side.ask(*line.split()) for side in (both.bare, both.ours)]
                assert rules(shown[0]) == rules(shown[1]), line
            else:
                both.same_line(line)
        assert both.ours.ask("ACL", "SETUSER", "threadis-x", "on").text.startswith(b"ERR threadis")


def test_a_dry_run_is_judged_in_the_database_of_who_asks(
    users: Both, pair: Pair, protocol: int
) -> None:
    """Where rules are for databases; elsewhere they are refused."""
    asked = (
        "GET a", "MGET a b", "EVAL 'return 1' 0", "FLUSHDB", "PING", "SELECT 1", "SELECT 16",
        "COPY a b DB 1", "COPY a b DB 16", "MOVE a 1", "MOVE a 17", "SWAPDB 0 1", "SWAPDB 1 17",
    )  # fmt: skip
    queued = ("ACL DRYRUN carol GET a", "SELECT 2", "ACL DRYRUN carol GET a", "SET a 1")
    with pair.both(protocol) as both:
        for rules in ("db=1", "db=0,2", "alldbs", "resetdbs", "db=0 (+get ~a db=3)"):
            both.same_line(f"ACL SETUSER carol reset on nopass ~* +@all {rules}")
            for db in range(4):
                both.same("SELECT", db)
                for line in asked:
                    both.same_line(f"ACL DRYRUN carol {line}")
                for line in ("MULTI", *queued, f"SELECT {db}", "ACL DRYRUN carol GET a", "EXEC"):
                    both.same_line(line)


def test_log(users: Both, pair: Pair) -> None:
    with pair.both() as both:
        for words in (
            ("AUTH", "alice", "wrong"), ("AUTH", "alice", "pass"), ("SET", "b1", 1), ("GET", "b2"),
            ("GET", "b1"), ("SET", "b1", 2), ("FLUSHALL",), ("SUBSCRIBE", "other"), ("MULTI",),
            ("SET", "b3", 1), ("EXEC",),
        ):  # fmt: skip
            both.same(*words)
    found = []
    for side in (users.bare, users.ours):
        log = side.ask("ACL", "LOG", 100)
        rows = []
        for entry in log.elements:
            texts = [part.raw for part in entry.elements]
            fields = dict(zip(texts[::2], texts[1::2], strict=True))
            names = (b"count", b"reason", b"context", b"object", b"username")
            rows.append([fields[b"$%d\r\n%s\r\n" % (len(name), name)] for name in names])
        found.append(sorted(rows))
    assert found[0] == found[1]
    users.same("ACL", "LOG", "RESET")
    users.same("ACL", "LOG")


def test_a_restricted_default_user(users: Both, pair: Pair) -> None:
    users.same("AUTH", "bob", "x")  # who may not, but stays connected
    users.same("RESET")
    early = pair.both()
    early.same("PING")
    users.same("ACL", "SETUSER", "default", "-@all", "+get", "+auth", "+acl")
    with early as both, pair.both() as late:
        for one in (both, late):
            for line in ("SET a 1", "GET a", "PING", "MGET a b", "ECHO x", "ACL WHOAMI"):
                one.same_line(line)
    users.same("ACL", "SETUSER", "default", "+@all", "resetpass", ">secret")
    with pair.both() as late:
        for line in ("= PING", "AUTH wrong", "AUTH secret", "PING", "CONFIG GET requirepass"):
            late.same_line(line)
    users.same("CONFIG", "SET", "requirepass", "other")
    with pair.both() as late:
        for line in ("= PING", "AUTH secret", "AUTH other", "CONFIG GET requirepass", "RESET"):
            late.same_line(line)
        late.same("PING", how="exact")
        users.same("CONFIG", "SET", "requirepass", "")
        late.same("PING")


LIBRARY: Final = """#!lua name=lib
redis.register_function('f', function(keys) return redis.call('incr', keys[1] .. 'f') end)
"""
SCRIPTS: Final = """
EVAL "return redis.call('set', KEYS[1], ARGV[1])" 1 x:1 v
EVAL "return redis.call('set', KEYS[1], ARGV[1])" 1 y:1 v
EVAL "return redis.call('mset', KEYS[1], 1, KEYS[2], 2, KEYS[3], 3)" 3 x:1 x:2 x:3
EVAL "return redis.call('set', 'y:1', 'v')" 0
EVAL "return redis.call('get', 'x:1')" 0
EVAL "return {redis.call('get', 'x:1'), redis.call('get', 'r:1'), redis.call('incr', 'x:n')}" 0
EVAL "return redis.call('set', 'r:1', 'v')" 0
EVAL "return redis.pcall('get', 'q')" 0
EVAL "local e = redis.pcall('hset', 'x:h', 'a', 'b') return {'$7', e, {e.err, 'x'}, false, 1}" 0
EVAL "return redis.pcall('hset', KEYS[1], 'a', 'b').err" 1 x:h
EVAL "return {ok = redis.pcall('hset', KEYS[1], 'a', 'b').err}" 1 x:h
EVAL "redis.setresp(3) return {map = {[redis.pcall('hlen', 'x:h').err] = {set = {q = true}}}}" 0
EVAL "redis.call('set', 'x:2', '2') return redis.pcall('hset', 'x:h', 'a', 'b')" 0
EVAL "return redis.call('hset', KEYS[1], 'a', 'b')" 1 x:h
EVAL "redis.call('set', 'x:9', '9') return redis.call('get', 'q')" 0
EVAL "return redis.call('publish', 'news', 'm')" 0
EVAL "return redis.call('publish', 'other', 'm')" 0
EVAL "return redis.call('mget', 'x:1', 'x:2', 'x:n', 'r:1')" 0
EVAL "return redis.call('mget', 'x:1', 'q', 'x:n', 'r:1')" 0
EVAL "return redis.call('set', 's:1', 1)" 0
EVAL "return redis.call('incr', 's:1')" 0
EVAL_RO "return redis.call('get', KEYS[1])" 1 r:1
EVAL "return redis.acl_check_cmd('set', KEYS[1], 1)" 1 x:1
EVAL "return redis.acl_check_cmd('hset', KEYS[1], 'f', 1)" 1 x:1
EVAL "return redis.acl_check_cmd('set', 'q', 1)" 0
FCALL f 1 x:1
FCALL f 1 q
MULTI
EVAL "return redis.call('incr', 'x:n')" 0
EVAL "return redis.pcall('incr', 'q')" 0
EXEC
"""


def denials(connection: Connection) -> list[tuple[bytes, ...]]:
    """Reason, context, object and user of the lines of ACL LOG."""
    names = (b"reason", b"context", b"object", b"username")
    found = []
    for entry in connection.ask("ACL", "LOG", 100).elements:
        texts = [word.text if word.kind == "$" else b"" for word in entry.elements]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        found.append(tuple(fields[name] for name in names))
    return found


def test_scripts_of_restricted_users(pair: Pair, protocol: int) -> None:
    with pair.both() as admin, pair.both(protocol) as both:
        try:
            admin.same("ACL", "LOG", "RESET")
            admin.same(
                "ACL", "SETUSER", "rita", "on", ">pw", "~x:*", "%R~r:*", "resetchannels", "&news",
                "+@all", "-@hash", "(~s:* -@all +set +eval)",
            )  # fmt: skip
            admin.same("MSET", "r:1", "one", "q", "1", "y:1", "y")
            admin.same("FUNCTION", "LOAD", LIBRARY)
            both.same("AUTH", "rita", "pw")
            for line in SCRIPTS.strip().splitlines():
                for _ in range(2):  # unknown at first, then known
                    both.same_line(line)
                    if line in ("MULTI", "EXEC"):
                        break
            admin.same("MGET", "x:1", "x:2", "x:3", "x:9", "x:n", "q", "y:1", "r:1", "s:1")
            admin.same("EXISTS", "x:h")
            assert set(denials(admin.ours)) == set(denials(admin.bare))
            log = admin.ours.ask("ACL", "LOG", 100).raw
            assert not any(ours in log for ours in (b"threadis", b".sock", b" db=17"))
        finally:
            admin.same("ACL", "DELUSER", "rita")
            admin.same("FUNCTION", "FLUSH")
            admin.same("FLUSHALL")


QUOTED: Final = [b'k"1', b'k"q"', b"k'1", b"k'q'", b"foo(bar)", b'k"1\\', b"", b"kq", b"k1", b"foo"]


def test_a_selector_may_name_keys_with_quotes_and_parentheses(pair: Pair) -> None:
    """Servers read a selector as a command line; in scripts, it allows what it says, no more."""
    selector = '("~k[\\"\']*" ~foo(bar) "~" +@all)'
    with pair.both() as admin, pair.both() as both:
        try:
            admin.same("ACL", "SETUSER", "rita", "reset", "on", ">pw", selector)
            for number, key in enumerate(QUOTED):
                admin.same("SET", key, number)
            both.same("AUTH", "rita", "pw")
            for lent in ("return 1", "return redis.call('GET', KEYS[1])"):
                for key in QUOTED:
                    both.same("EVAL", lent, 1, key)
            for name in ("EVAL", "EVAL_RO"):
                for other in QUOTED:
                    script = b"return {redis.call('GET', KEYS[1]), redis.pcall('GET', ARGV[1])}"
                    for key in QUOTED[:6]:
                        both.same(name, script, 1, key, other)
        finally:
            admin.same("ACL", "DELUSER", "rita")
            admin.same("FLUSHALL")

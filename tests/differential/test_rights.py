"""Rights are those of the moment in which a command takes effect, on every road."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_acl import denials
from differential.test_keyspace import spread
from differential.wire import REPLY_LIMIT, Connection, Reply, Word, pack
from raw import command
from waiting import until

pytestmark = pytest.mark.sample

A, B, C, D = KEYS = spread("b:", each=1)  # on four instances
ALL: Final = "~b:* &* +@all"
Change = tuple[str, list[str], str]  # bob's rules, what he queues, what is done to him

EXECS: Final[dict[str, Change]] = {
    "one instance": (ALL, [f"GET {A}", f"SET {A} 9"], "-get"),
    "several instances": (ALL, [f"GET {A}", f"SET {B} 9", f"SET {C} 8"], "-get"),
    "keys": (ALL, [f"GET {A}", f"SET {B} 9", f"MGET {A} {B} {C}"], f"resetkeys ~o:* ~{A}"),
    "was not restricted": ("~* &* +@all", [f"GET {A}", f"SET {B} 9", f"INCR {C}"], "-set"),
    "may more": ("~b:* +@all", [f"GET {A}", f"SET {B} 9"], "+@all allkeys"),
    "all of it": (ALL, [f"GET {A}", f"SET {B} 9"], "-get -set"),
    "only writes": (ALL, [f"GET {A}", f"SET {B} 9", f"GETSET {C} 1"], "resetkeys %W~b:*"),
    "channel": (ALL, ["PUBLISH c x", f"SET {B} 9"], "resetchannels"),
    "script": (ALL, [f"EVAL return(redis.call('set',KEYS[1],7)) 1 {A}", f"SET {B} 9"], "-eval"),
    "spans instances": (ALL, [f"RENAME {A} {B}", f"SUNION {A} {C}", f"SET {B} 9"], "-rename"),
    "in order": (ALL, ["SELECT 1", f"SET {B} 9", "SELECT 0", f"SET {C} 7"], "-select"),
    "whole keyspace": (ALL, ["FLUSHALL", f"SET {B} 9"], "-flushall"),
    "waits": (ALL, [f"BLPOP {A}x {B}x 0", f"SET {B} 9"], "-blpop"),
    "its own change": (ALL, ["ACL SETUSER bob -get", f"GET {A}", f"SET {B} 9"], "+get"),
    "a selector": (
        f"+@all -@write ~* (~{A} +set) (~{B} +set)", [f"SET {A} 5", f"GET {A}", f"SET {B} 3"],
        "clearselectors",
    ),
    "sorts by any key": (ALL, [f"SORT {D}l BY x*", f"SET {B} 9", f"SORT_RO {D}l GET #"], "+get"),
    "EXEC": (ALL, [f"GET {A}", f"SET {B} 9"], "-exec"),
    "MULTI": (ALL, [f"GET {A}", f"SET {B} 9"], "-multi"),
    "spoilt": (ALL, [f"GET {A}", "NOSUCH"], "-get"),
    "nothing": (ALL, [], "-get"),
}  # fmt: skip


@pytest.fixture
def admin(pair: Pair) -> Iterator[Both]:
    """Somebody who may everything; the keys have numbers."""
    with pair.both() as both:
        both.same("FLUSHALL")
        both.same("MSET", *[word for number, key in enumerate(KEYS) for word in (key, number)])
        yield both
        both.same("ACL", "DELUSER", "bob", how="shape")


def become_bob(admin: Both, both: Both, rules: str) -> None:
    admin.same_line(f"ACL SETUSER bob reset on >pw {rules}")
    both.same("AUTH", "bob", "pw")
    admin.same("ACL", "LOG", "RESET")


@pytest.mark.parametrize("watched", [(), (A,), KEYS], ids=["unwatched", "one watched", "watched"])
@pytest.mark.parametrize("name", list(EXECS))
def test_exec_runs_what_may_run_now(
    pair: Pair, admin: Both, name: str, watched: tuple[str, ...]
) -> None:
    rules, queued, change = EXECS[name]
    with pair.both() as both:
        become_bob(admin, both, rules)
        if watched:
            both.same("WATCH", *watched)
        both.same("MULTI")
        for line in queued:
            both.same_line(line)
        admin.same_line(f"ACL SETUSER bob {change}")
        both.same("EXEC")
        both.same("GET", A)
        admin.same("MGET", *KEYS)
        assert set(denials(admin.ours)) == set(denials(admin.bare))


def test_a_pipeline_that_changes_its_own_rights(pair: Pair, admin: Both) -> None:
    with pair.both() as both:
        become_bob(admin, both, ALL)
        lines = [
            "MULTI", f"GET {A}", f"SET {B} 5", "ACL SETUSER bob -get", "EXEC", f"GET {A}", "MULTI",
            f"GET {A}", "EXEC", "ACL SETUSER bob +get -set -mset", f"SET {A} 9",
            f"MSET {A} 1 {B} 5", f"MGET {A} {B}",
        ]  # fmt: skip
        both.same_all([line.encode().split() for line in lines])


def one_waits(side: Connection) -> bool:
    return b"blocked_clients:1\r" in side.ask("INFO", "clients").text


WAITS: Final = {
    "BLPOP": f"BLPOP {A}q {B}q 0",
    "BLPOP of one": f"BLPOP {A}q 0",
    "BLMOVE": f"BLMOVE {A}q {B}t LEFT RIGHT 0",
    "BZPOPMIN": f"BZPOPMIN {A}z {B}z 0",
    "XREAD": f"XREAD BLOCK 0 STREAMS {A}s {B}s $ $",
    "XREADGROUP": f"XREADGROUP GROUP g c BLOCK 0 STREAMS {A}g >",
}
TAKEN: Final = ["-@all +ping", "resetkeys", f"resetkeys ~{A}*", "resetkeys %R~b:*", "+get"]


@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize("name", list(WAITS))
def test_whoever_is_woken(pair: Pair, admin: Both, name: str, taken: str) -> None:
    with pair.both() as both:
        become_bob(admin, both, ALL)
        admin.same("XGROUP", "CREATE", f"{A}g", "g", "$", "MKSTREAM")
        for side in (both.bare, both.ours):
            side.send(command(*WAITS[name].split()))
        for side in (admin.bare, admin.ours):
            until(partial(one_waits, side), "it waits")
        admin.same_line(f"ACL SETUSER bob {taken}")
        for line in (f"RPUSH {A}q e", f"ZADD {A}z 1 m", f"XADD {A}s 1-1 f v", f"XADD {A}g 1-1 f v"):
            admin.same_line(line)
        assert both.ours.read() == both.bare.read()
        both.same("PING")
        for line in (f"LLEN {A}q", f"ZCARD {A}z", f"LLEN {B}t", f"XPENDING {A}g g"):
            admin.same_line(line)
        assert set(denials(admin.ours)) == set(denials(admin.bare))


LISTENED: Final = ["resetchannels", "resetchannels &news", "resetchannels &n*", "-@all", "off"]


@pytest.mark.parametrize("taken", [*LISTENED, "resetchannels (&news +ping)", "allchannels"])
@pytest.mark.parametrize("how", ["SUBSCRIBE news", "PSUBSCRIBE n*", "SSUBSCRIBE news"])
def test_whoever_listens(pair: Pair, admin: Both, how: str, taken: str) -> None:
    with pair.both() as both:
        become_bob(admin, both, ALL)
        both.same_line(how)
        admin.same_line(f"ACL SETUSER bob {taken}")
        if admin.same("PUBLISH", "news", "x").number + admin.same("SPUBLISH", "news", "x").number:
            assert both.ours.read() == both.bare.read()
        else:
            assert both.ours.read_to_end() == both.bare.read_to_end() == b""


@pytest.mark.parametrize(
    "rules", ["-@all +get", "nopass", "resetpass", "reset", "-get", "allcommands allkeys"]
)
def test_whoever_is_there_stays_though_nobody_else_may_come(
    pair: Pair, admin: Both, rules: str
) -> None:
    with pair.both() as both, pair.both() as newcomer:
        become_bob(admin, both, "~b:* +@all")
        shown = ["ACL LIST", "ACL GETUSER bob", "ACL USERS"]
        for line in ("ACL SETUSER bob off", f"ACL SETUSER bob {rules}", "ACL SETUSER bob +nosuch"):
            admin.same_line(line)
            for words in (f"GET {A}", f"SET {B} 1", f"MSET {A} 1 {B} 2 {C} 3", f"GET {A}"):
                both.same_line(words)
            newcomer.same("AUTH", "bob", "pw")
            for words in shown:
                admin.same_line(words)
        for line in ("ACL SETUSER bob on", "ACL SETUSER bob >new", "ACL SETUSER bob off"):
            admin.same_line(line)
            for password in ("pw", "new"):
                newcomer.same("AUTH", "bob", password)
            for words in shown:
                admin.same_line(words)


EMPTY: Final = [
    "~* +@all -flushall", "allkeys +@all -flushall", "~** +@all", "%RW~** +@all", "%R~* +@all",
    "~ ~b:* +@all", "~b:* +@all", "+@all -@write (~* +@write +eval +get)", "%RW~* ~a +@all",
    "-@all +eval +multi +exec %R~* %W~* ~a",
]  # fmt: skip


@pytest.mark.parametrize("rules", EMPTY)
def test_the_empty_key_in_scripts(pair: Pair, admin: Both, rules: str) -> None:
    """Of all patterns only ``~*`` is none to servers, and stands for the empty key, too."""
    reads = "for _, key in ipairs(KEYS) do redis.call('get', key) end return #KEYS"
    writes = reads.replace("'get', key", "'set', key, 5")
    with pair.both() as both:
        become_bob(admin, both, f"&* {rules}")
        for keys in ([""], [A, ""], ["", A, B], [A, B]):
            for script in (reads, writes):
                call: list[Word] = ["EVAL", script, len(keys), *keys]
                both.same(*call)
                both.same("MULTI")
                both.same(*call)
                both.same("EXEC")
        admin.same("MGET", "", A, B)


APART: Final = [
    "+@all %R~* %W~b:*", "+@all %R~b:* %W~b:*", "+@all %W~* %R~b:*", "+@all %R~* %W~* ~b:2*",
    "+@all %RW~* ~b:2*", "+@all -set (%RW~* ~b:2* +@all -get)",
    "+@all %R~b:* (%W~b:* +@all)", "-@all +eval +multi +exec +get %R~b:* (%W~b:* +@all)",
]  # fmt: skip
AWKWARD: Final = ["b:*", "b:[x]\\", "b: \0", "\\b:", "[b:]", " b:", "\tb:", "?", "b:\xff"]


@pytest.mark.parametrize("rules", APART)
def test_what_reads_and_writes_a_key_needs_one_pattern_for_both(
    pair: Pair, admin: Both, rules: str
) -> None:
    """In scripts, too, whose guards are told of keys, not of patterns."""
    scripts = (
        "redis.call('set', KEY, 5) return redis.call('get', KEY)",
        "redis.call('get', KEY) return redis.call('set', KEY, 7)",
        "return redis.call('incr', KEY)",
        "return redis.call('getdel', KEY)",
        "redis.call('set', KEY, 5) return redis.pcall('incr', KEY)",
        "return redis.pcall('rename', KEY, 'b:other')",
        "return redis.pcall('sunionstore', 'b:other', KEY)",
    )
    with pair.both() as both:
        become_bob(admin, both, f"&* {rules}")
        for key in (*KEYS, *AWKWARD):
            for body in scripts:
                calls: list[list[Word]] = [
                    ["EVAL", body.replace("KEY", "KEYS[1]"), 1, key],
                    ["EVAL", body.replace("KEY", "KEYS[2]"), 2, A, key],
                    ["EVAL", body.replace("KEY", "ARGV[1]"), 0, key],
                    ["EVAL", body.replace("KEY", "ARGV[1]"), 1, A, key],
                ]
                for call in calls:
                    both.same(*call)
                both.same("MULTI")
                both.same("SET", B, 1)
                both.same(*calls[0])
                both.same(*calls[2])
                both.same("EXEC")
                admin.same("MGET", key, "b:other")
            admin.same("DEL", "b:other")


FIRST_ARGUMENTS: Final = {
    "-select +select|1": "'select', 1",
    "-move +move|a": "'move', 'a', 1",
    "-copy +copy|a": "'copy', 'a', 'c'",
    "-flushall +flushall|async": "'flushall', 'async'",
    "-keys +keys|*": "'keys', '*'",
    "-publish +publish|c": "'publish', 'c', 'x'",
}


@pytest.mark.parametrize("rules", FIRST_ARGUMENTS)
@pytest.mark.parametrize("keys", [[], [A], [A, B]], ids=len)
def test_rules_for_first_arguments(pair: Pair, admin: Both, rules: str, keys: list[str]) -> None:
    """What a script may do with these it does, or is not run; it is never taken for denied."""
    script = f"redis.pcall({FIRST_ARGUMENTS[rules]}) "
    script += "for _, key in ipairs(KEYS) do redis.call('set', key, 1) end "
    script += "redis.call('set', ARGV[1], 1) return 1"
    states: list[list[Word]] = [["SELECT", 1], ["KEYS", "*"], ["SELECT", 0], ["KEYS", "*"]]
    with pair.both() as both:
        become_bob(admin, both, f"~* &* +@all {rules}")
        for target in (C, D):
            admin.same("FLUSHALL")
            admin.same("SET", "a", "v")
            for _ in range(2):
                bare, ours = (
                    side.ask("EVAL", script, len(keys), *keys, target)
                    for side in (both.bare, both.ours)
                )
                if not ours.raw.startswith(b"-ERR threadis: "):
                    assert ours.raw == bare.raw
                    for words in states:
                        admin.same(*words, how="unordered" if words[0] == "KEYS" else None)
                else:
                    assert admin.ours.ask("DBSIZE").number == 1


def test_exec_that_is_denied_ends_the_watch(admin: Both, pair: Pair, protocol: int) -> None:
    for queued in (["GET", A], ["MSET", A, "1", B, "2"], []):
        with pair.both(protocol) as both:
            become_bob(admin, both, ALL)
            both.same("WATCH", A, B)
            admin.same("SET", A, 5)
            for right in ("-exec", "+exec"):
                admin.same_line(f"ACL SETUSER bob {right}")
                both.same("MULTI")
                if queued:
                    both.same(*queued)
                both.same("EXEC")


UNDECLARED: Final = "redis.call('set', 'b:' .. ARGV[1], 1) return redis.call('incr', 'b:count')"
SENT: Final[dict[str, list[list[Word]]]] = {
    "MSET": [["MSET", A, "{}", B, "{}", C, "{}", D, "{}"]],
    "transaction": [["MULTI"], ["SET", A, "{}"], ["INCR", B], ["EXEC"]],
    "script": [["EVAL", UNDECLARED, 0, "{}"]],
    "with a script": [["MULTI"], ["SET", A, "{}"], ["EVAL", UNDECLARED, 0, "{}"], ["EXEC"]],
}  # fmt: skip
SENDERS, ROUNDS = 4, 12


def go_on(sender: Connection, commands: list[list[Word]], number: int) -> list[Reply]:
    """Send the same again and again until it is refused; what was answered."""
    replies: list[Reply] = []
    while not any(reply.is_error or refuses(reply) for reply in replies):
        value = f"{number}-{len(replies)}"
        sent = [[value if word == "{}" else word for word in words] for words in commands]
        sender.send(b"".join(pack(*words) for words in sent))
        replies = [*replies[-1:], *(sender.read() for _ in sent)]
    return replies


def refuses(reply: Reply) -> bool:
    """Whether EXEC has refused all; it never refuses only a part of what needs the same rights."""
    refused = {one.is_error for one in reply.elements}
    assert len(refused) < 2, reply
    return refused == {True}


@pytest.mark.parametrize(
    ("given", "taken"),
    [("~* &* +@all", "resetkeys ~o:*"), ("~* &* +@all", "-@write"), (ALL, "-@write")],
)
@pytest.mark.parametrize("name", list(SENT))
def test_nothing_happens_any_more_once_rights_were_taken(
    pair: Pair, admin: Both, name: str, given: str, taken: str
) -> None:
    """Also of what waits for its turn."""
    change, state = ["ACL", "SETUSER", "bob"], ["MGET", *KEYS, "b:count"]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(SENDERS) as pool:
        everybody = [stack.enter_context(pair.both()) for _ in range(SENDERS)]
        for side in ("bare", "ours"):
            asks: Connection = getattr(admin, side)
            senders: list[Connection] = [getattr(both, side) for both in everybody]
            for number in range(ROUNDS):
                asks.ask(*change, "reset", "on", ">pw", *given.split())
                for sender in senders:
                    assert sender.ask("AUTH", "bob", "pw").raw == b"+OK\r\n"
                before = asks.ask(*state)
                jobs = [
                    pool.submit(go_on, sender, SENT[name], SENDERS * number + at)
                    for at, sender in enumerate(senders)
                ]
                while asks.ask(*state) == before:
                    assert not any(job.done() for job in jobs)  # they write
                assert asks.ask(*change, *taken.split()).raw == b"+OK\r\n"
                seen = asks.ask(*state)
                for job in jobs:
                    job.result(REPLY_LIMIT)
                assert asks.ask(*state) == seen

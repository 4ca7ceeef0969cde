"""Transactions that are one write: with SORT, databases, sweeps, settings, counts of keys."""

import shlex
from typing import Final

import pytest

from differential.pair import Both, Pair, marked
from differential.test_keyspace import spread
from differential.wire import Connection

pytestmark = pytest.mark.sample

A, B, C, D = spread("one", each=1)
DATABASES: Final = 4
LAST: Final = b"$3\r\nend\r\n$0\r\n\r\n"
BEFORE: Final = (
    f"RPUSH {A} 3 1 2", f"SADD {B} a b c", f"SADD {C} b c d", f"SET {D} here EX 1000",
    "MSET w_1 3 w_2 2 w_3 1 w_9 0 d_1 one d_2 two d_3 three d_9 nine", "SELECT 1",
    f"SADD {B} elsewhere", "SET q 1", "SELECT 2", "SET other 1", "HSET hash f v", "SELECT 0",
)  # fmt: skip
# Scripts that touch more than their keys, or one of which nobody knows what.
STRAY: Final = (
    "EVAL \"for _, key in ipairs(KEYS) do redis.call('SET', key, #ARGV) end "
    "redis.call('INCR', ARGV[#ARGV]) return redis.call('APPEND', ARGV[#ARGV - 1], 'x')\""
)
READ: Final = 'EVAL_RO "return redis.call(unpack(ARGV))"'
LISTS: Final = "EVAL \"local all = redis.call('KEYS', '*') table.sort(all) return all\""
CLEARS: Final = "EVAL \"redis.call('FLUSHDB') return redis.call('SET', 'cleared', 1)\""
SORTS: Final = "EVAL \"return redis.call('SORT', KEYS[1], 'BY', 'w_*', 'GET', 'd_*')\""
SAYS: Final = (
    "EVAL \"redis.call('PUBLISH', ARGV[1], KEYS[1]) return redis.call('SET', ARGV[2], 'said')\""
)
# Each with something that no instance can do alone.
TRANSACTIONS: Final = {
    "SORT BY": (f"SORT {A} BY w_*", "SET w_3 9", f"SORT {A} BY w_*", f"SORT_RO {A} BY w_* GET d_*"),
    "SORT GET of what comes": (
        f"SORT {A} GET d_*", f"RPUSH {A} 9", "SET d_9 changed", f"SORT {A} BY w_* GET # GET d_*",
        f"DEL {A}", f"SORT {A} BY w_*", f"SORT {D} BY w_*",
    ),
    "SORT GET of a field": ("HSET h_1 f x", f"SORT {A} BY h_*->f GET h_*->f", "HSET h_2 f y"),
    "SORT STORE": (f"SORT {A} STORE {B}", f"SORT {B} DESC STORE {C}", f"LRANGE {C} 0 -1"),
    "SORT BY STORE": (
        f"SORT {A} BY w_* GET d_* STORE {B}", f"SORT {B} ALPHA BY nosort STORE {A}",
        f"SORT {A} BY w_* STORE {A}", f"LRANGE {A} 0 -1", f"SORT {A} BY nothing STORE {C}",
    ),
    "FLUSHDB": (
        f"MSET {A} 1 {D} 2", "FLUSHDB", "DBSIZE", "MSET a 1 b 2 c 3", "RENAME a z", "DBSIZE",
        "unordered KEYS *", f"EXISTS {A} {B} {C} {D}",
    ),
    "FLUSHALL": (
        f"SUNIONSTORE s {B} {C}", "FLUSHALL ASYNC", f"SUNIONSTORE s {B} {C}", "MSET a 1 b 2 c 3",
        "SELECT 2", "DBSIZE", "SET other 2", "MSET a 1 b 2 c 3", "GETDEL a",
    ),
    "FLUSHALL that cannot be": (f"SUNIONSTORE s {B} {C}", "FLUSHALL NOW", "FLUSHDB SYNC SYNC"),
    "several databases": (
        f"SUNIONSTORE s {B} {C}", "SELECT 1", f"SUNIONSTORE s {B} {C}", f"EXPIRE {B} 100",
        "SELECT 2", "unordered KEYS *", "MSET k1 1 k2 2 k3 3", "SELECT 99", "SELECT 0", "DEL s",
    ),
    "MOVE": (
        f"SUNIONSTORE s {B} {C}", "MOVE s 3", f"SUNIONSTORE s {B} {C}", "MOVE s 3", f"MOVE {D} 1",
        "MOVE q 77", "MOVE q 0", "MOVE nothing 2", "MOVE q x",
    ),
    "COPY ... DB": (
        f"COPY {B} {A} DB 3", f"COPY {B} {A} DB 3", f"COPY {C} {A} REPLACE DB 3 DB 1",
        f"COPY {B} {A} DB 77", f"COPY {D} {B} DB 2", f"COPY {D} {D}",
    ),
    "SWAPDB": (
        f"SUNIONSTORE s {B} {C}", "SWAPDB 0 1", "DBSIZE", "unordered KEYS *",
        f"SUNIONSTORE t {B} {C}", "SWAPDB 1 1", "SELECT 1", "DBSIZE", f"SADD {B} z",
    ),
    "SWAPDB and FLUSHDB": (
        "SWAPDB 1 2", "FLUSHDB", f"SUNIONSTORE s {B} {C}", "SWAPDB 0 2", "FLUSHDB ASYNC",
        "FLUSHDB LATER", "MSET a 1 b 2 c 3", "SELECT 2", "DBSIZE",
    ),
    "RANDOMKEY": (
        f"DEL {A} {B} {C} {D} w_1 w_2 w_3 w_9 d_1 d_2 d_3 d_9", "RANDOMKEY", "SET x 1", "RANDOMKEY",
        "LCS x y", "DEL x", "RANDOMKEY", "SELECT 1", f"SREM {B} elsewhere", "RANDOMKEY",
    ),
    "INFO, SCAN and their like": (
        f"MSET {A} 1 {B} 2", "shape INFO server", "shape SCAN 0 MATCH no", f"SUNIONSTORE s {C} {C}",
        "shape CLIENT LIST", "shape MEMORY DOCTOR", "ACL LOG RESET", "SLOWLOG RESET", f"DEL {A}",
    ),
    "settings before the write": (
        "CONFIG SET list-max-listpack-size 77", "CONFIG SET nothing 1", "SCRIPT EXISTS f",
        "SET x 1", "CLIENT SETNAME me", f"SUNIONSTORE s {B} {C}", "CLIENT GETNAME",
        "CONFIG GET list-max-listpack-size",
    ),
    "settings between reads": (
        f"GET {D}", f"GET {A}", "CONFIG SET hz 11", f"EVAL_RO \"return redis.call('GET','{D}')\" 0",
        "CONFIG SET hz 12", f"SET {A} 1", f"SUNIONSTORE s {B} {C}", f"MGET {A} {D}",
        "CONFIG SET hz 13", f"GET {A}", "XREAD BLOCK 0 STREAMS nothing 0", f"SCARD {B}",
        "CONFIG SET hz 10", "DBSIZE",
    ),
    "settings that refuse what comes": (
        "CONFIG SET maxmemory 1", f"SET {A} 1", "CONFIG GET maxmemory", f"SUNIONSTORE s {B} {C}",
        "CONFIG SET min-replicas-to-write 1 maxmemory 2", f"SET {B} 1", "CONFIG GET maxmemory",
        "CONFIG SET maxmemory x", f"SET {C} 1",
    ),
    "settings that refuse, several": (
        "CONFIG SET min-replicas-to-write 1 min-replicas-max-lag 9", f"MSET {A} 1 {B} 2",
        f"INCR {A}",
    ),
    "settings that refuse, behind a script": (
        f"EVAL \"return redis.call('SET','{A}',1)\" 0", "CONFIG SET maxmemory 1", f"SET {B} 1",
    ),
    "settings behind the write": (f"SUNIONSTORE s {B} {C}", "SET x 1", "CONFIG SET hz 11"),
    "a script that is loaded first": (
        "SCRIPT LOAD 'return 1'", f"SET {A} 1",
        "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0", f"SET {B} 1",
    ),
    "what does nothing": (
        f"SET {A} 1", "UNWATCH", "SCRIPT EXISTS x", f"SET {B} 1", "FUNCTION LIST", "SWAPDB 0 99",
        f"SET {C} 1", "SWAPDB 0 x", f"COPY {A} new DB 0", "FUNCTION KILL", f"MOVE {D} 0",
    ),
    "scripts in several databases": (
        f"{STRAY} 1 {A} {D} n", "SELECT 1", f"{STRAY} 1 {B} {D} n", "SELECT 2",
        f"{STRAY} 2 {A} {B} other n", f"{READ} 0 GET hash", "SELECT 99", "DBSIZE", "SELECT 0",
        f"{STRAY} 0 n n n", f"MGET {A} {B} n",
    ),
    "scripts with MOVE and COPY ... DB": (
        f"{STRAY} 1 {A} {D} n", f"MOVE {A} 2", f"{READ} 0 EXISTS {A}", f"COPY {B} {A} DB 3",
        f"{STRAY} 1 {A} {D} n", "MOVE n 1", "SELECT 1", f"{STRAY} 1 q n {A}", "MOVE q 0",
        f"MOVE {A} 77", "SELECT 2", f"{READ} 0 GET {A}", f"{READ} 0 GET other",
    ),
    "scripts with FLUSHDB": (
        f"{STRAY} 1 {A} {D} n", "FLUSHDB", "DBSIZE", f"{STRAY} 1 {B} {C} n", "unordered KEYS *",
        f"{READ} 0 EXISTS {A}", f"{READ} 0 DBSIZE", "FLUSHDB SYNC", f"{STRAY} 1 {D} made n",
    ),
    "scripts with FLUSHALL": (
        f"{STRAY} 1 {A} {D} n", "FLUSHALL ASYNC", f"{STRAY} 1 {A} {D} n", "SELECT 2", "DBSIZE",
        f"{READ} 0 EXISTS other", f"{STRAY} 1 other {A} n", "FLUSHALL NOW", "SELECT 3", "DBSIZE",
    ),
    "scripts with SWAPDB": (
        f"{STRAY} 1 {A} {D} n", "SWAPDB 0 1", f"{STRAY} 1 {B} q n", "DBSIZE", "unordered KEYS *",
        "SELECT 1", f"{READ} 0 GET {A}", f"{READ} 0 GET n", "SWAPDB 1 2", f"{STRAY} 1 {C} n n",
        f"{READ} 0 GET other", "SWAPDB 0 99", "FLUSHDB", f"{STRAY} 1 {B} n n", "DBSIZE",
    ),
    "scripts that list, with SWAPDB": (
        f"{READ} 0 DBSIZE", "SWAPDB 0 2", f"{LISTS} 0", f"SET {A} 1", "MOVE hash 1", f"{LISTS} 0",
        f"{STRAY} 1 {B} q n", "SELECT 1", f"{LISTS} 0", "SELECT 2", f"{LISTS} 0", f"{CLEARS} 0",
        "DBSIZE", "SELECT 0", f"{LISTS} 0",
    ),
    "scripts with SORT BY": (
        f"{STRAY} 1 {A}9 w_1 w_2", f"SORT {A} BY w_*", f"{STRAY} 0 x d_2 d_3",
        f"SORT {A} BY w_* GET d_* STORE {B}", f"{READ} 0 LINDEX {B} 0", f"RPUSH {A} 7",
        f"{STRAY} 0 x w_7 w_3", f"SORT {A} DESC BY w_* GET # GET d_*", f"{SORTS} 1 {A}",
        f"EVAL \"return redis.call('RPUSH', KEYS[1], 9)\" 1 {A}", f"{SORTS} 1 {A}",
        "SELECT 1", "RPUSH l 1 2", "SET w_1 5", f"{STRAY} 0 x w_2 w_1", "SORT l BY w_*",
        f"{SORTS} 1 l", "SWAPDB 0 1", f"{SORTS} 1 {A}", "SELECT 0", f"{SORTS} 1 l",
    ),
    "scripts that fail, with databases": (
        "SELECT 1", f"EVAL \"redis.call('SET','q','2') error('mine')\" 1 {B}", "SELECT 0",
        f"{STRAY} 1 {A} {B} n", f"{READ} 0 nothing", "MOVE n 1", f"EVALSHA {'0' * 40} 0",
        f"EVAL x 9 {A}", "FCALL nothing 0",
    ),
    "scripts that only select, with databases": (
        "EVAL \"return redis.pcall('SELECT', ARGV[1])\" 0 3", "SELECT 1", f"{STRAY} 1 {A} {B} n",
        f"EVAL \"local v = redis.call('GET', 'q') redis.call('SELECT', 0) return v\" 1 {B}",
        "MOVE n 0",
    ),
    "a script that publishes, with databases": (
        f"{STRAY} 1 {A} {D} n", "SELECT 2", f"{SAYS} 1 {A} __key__:1 x", "FLUSHDB",
        f"{SAYS} 1 {A} __key__:2 {B}",
    ),
    "wrong numbers of keys": (
        f"ZUNIONSTORE {A} 0 y", "SET a 1", "SINTERCARD zz a", "SET b 2", "LMPOP 0 a LEFT",
        "SET c 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("flags", ["", "KEA"])
@pytest.mark.parametrize("name", TRANSACTIONS)
def test_what_it_answers_and_leaves_and_tells(
    pair: Pair, protocol: int, name: str, flags: str
) -> None:
    with pair.both(protocol) as both, pair.both() as listening:
        both.same("FLUSHALL")
        for line in BEFORE:
            both.same_line(line)
        both.same("CONFIG", "SET", "notify-keyspace-events", flags)
        listening.same("PSUBSCRIBE", "__key*__:*", "end")
        listening.bare.read()
        listening.ours.read()
        commands = [marked(line) for line in TRANSACTIONS[name]]
        batch = [[b"MULTI"], *(words for _, words in commands), [b"EXEC"]]
        bare, ours = both.bare.ask_all(batch)[-1], both.ours.ask_all(batch)[-1]
        assert len(ours.elements) == len(commands), ours.raw
        for (how, words), theirs, got in zip(commands, bare.elements, ours.elements, strict=True):
            assert not both.differ(words, theirs, got, how), (words, theirs.raw, got.raw)
        both.same("SELECT", 0)
        both.same("PUBLISH", "end", "")
        assert heard(listening.ours) == heard(listening.bare)
        for setting in (
            "notify-keyspace-events ''", "list-max-listpack-size -2", "hz 10", "maxmemory 0",
            "min-replicas-to-write 0", "min-replicas-max-lag 10",
        ):  # fmt: skip
            both.same("CONFIG", "SET", *shlex.split(setting))
        same_values(both)


def heard(side: Connection) -> list[bytes]:
    """What a subscriber is told up to the end."""
    found: list[bytes] = []
    while not found or not found[-1].endswith(LAST):
        found.append(side.read().raw)
    return found


def same_values(both: Both) -> None:
    """The same values in each database, and those that expire."""
    for db in range(DATABASES):
        both.same("SELECT", db)
        for key in sorted(key.text for key in both.same("KEYS", "*").elements):
            kind = both.same("TYPE", key).text
            if kind == b"list":
                both.same("LRANGE", key, 0, -1)
            else:
                both.same("SORT" if kind == b"set" else "DUMP", key, *[b"ALPHA"] * (kind == b"set"))
            both.same("PEXPIRETIME", key, how="shape")


def test_what_cannot_be_one_write_is_refused_before_anything_has_happened(pair: Pair) -> None:
    asks = "EVAL \"redis.acl_check_cmd('FLUSHALL') return redis.call(ARGV[1], ARGV[2])\" 0 INCR {}"
    refused = {
        f"SET {A} 1|CONFIG SET hz 11|SET {B} 1": b"CONFIG SET between writes",
        f"SET {A} 1|FUNCTION FLUSH|MSET {A} 1 {B} 1": b"FUNCTION FLUSH between writes",
        f"SET {A} 1|{asks.format(B)}": b"run it by itself",
        "|".join(f"SELECT {db}|SUNIONSTORE s {B} {C}" for db in range(5)): b"4 databases",
    }
    with pair.both() as both:
        both.same("FLUSHALL")
        for text, why in refused.items():
            batch = [[b"MULTI"], *(marked(line)[1] for line in text.split("|")), [b"EXEC"]]
            reply = both.ours.ask_all(batch)[-1]
            assert reply.is_error, (text, reply.raw)
            assert why in reply.raw
            assert both.ours.ask("DBSIZE").number == 0, text
        assert both.ours.ask("CONFIG", "GET", "hz").elements[1].text == b"10"


@pytest.mark.parametrize(
    "leader", ["CONFIG SET hz 10", "CONFIG SET hz x", "SCRIPT LOAD 'return 1'"]
)
@pytest.mark.parametrize("others", [[], [f"SET {A} 1", f"SET {B} 1"]])
@pytest.mark.parametrize("call", ["'SCAN', 0", "'MOVE', KEYS[1], 2", "'FLUSHALL'"])
def test_each_command_has_one_reply_whatever_becomes_of_scripts(
    pair: Pair, leader: str, others: list[str], call: str
) -> None:
    with pair.both() as both:
        both.same("FLUSHALL")
        lines = [leader, *others, f'EVAL "return redis.call({call})" 1 {C}', "ECHO last"]
        batch = [[b"MULTI"], *(marked(line)[1] for line in lines), [b"EXEC"], [b"ECHO", b"next"]]
        *_, found, following = both.ours.ask_all(batch)
        assert len(found.elements) == len(lines), found.raw
        assert following.text == b"next"
        assert both.ours.ask("DBSIZE").number == 0 or not found.elements[1].is_error

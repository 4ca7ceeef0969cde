"""Scripts that touch keys without declaring them: of any bytes, in a rare branch, very many."""

import itertools
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread

A, B, C, D = KEYS = spread("u", each=1)
GET = "return redis.call('GET', ARGV[1] or KEYS[1])"
PUT = "return redis.call('INCR', ARGV[1])"
RARE = (
    "redis.call('INCR', KEYS[1]) if ARGV[1] ~= '' then redis.call('INCR', ARGV[1]) end return 'ok'"
)
# What patterns of names cannot hold, and what means something in them.
ODD: Final = b"\0\t\n\v\f\r \x08\x0e*?[]\\^-~%\x80\xff"


def test_keys_of_any_byte(pair: Pair) -> None:
    """Each byte is a key of its own, declared or not, read or written."""
    with pair.both() as both:
        keys = [b"", *(bytes([byte]) for byte in range(256))]
        keys += [bytes(pair) for pair in itertools.product(ODD, repeat=2)]
        both.same_all([[b"SET", key, b"%d" % number] for number, key in enumerate(keys)])
        for script, before in ((GET, []), (PUT, []), (GET, ["1"])):
            both.same_all([
                [b"EVAL", script.encode(), *([b"0"] if not before else [b"1"]), key]
                for key in keys
            ])  # fmt: skip
        both.same_all([[b"GET", key] for key in keys])


def test_keys_that_differ_in_one_byte_are_not_mixed_up(pair: Pair) -> None:
    with pair.both() as both:
        for one, other in itertools.permutations(b"\0\t\n\v\f\r \x08", 2):
            first, second = b"id:%c:x" % one, b"id:%c:x" % other
            both.same("SET", first, 1)
            both.same("SET", second, 5)
            both.same("EVAL", "redis.call('GET', ARGV[1]) " + PUT, 0, first)
            both.same("EVAL", "redis.call('GET', KEYS[1]) " + PUT, 1, first, second)
            both.same("EVAL", "redis.call('INCR', KEYS[1]) " + PUT, 1, second, first)
            both.same("MGET", first, second)


@pytest.mark.parametrize("stop", ["", "error('stop')", "redis.call('LPUSH', KEYS[1], 1)"])
@pytest.mark.parametrize("user", ["default", "few"])
def test_a_rare_branch_is_done_or_not_done(pair: Pair, user: str, stop: str) -> None:
    """That a script has kept to its keys so far proves nothing."""
    script = RARE.replace("return", stop + " return")
    with pair.both() as both:
        both.same("ACL", "SETUSER", "few", "on", ">p", "~u*", "+@all")
        if user == "few":
            both.same("AUTH", "few", "p")
        for _ in range(5):
            both.same("EVAL", script, 1, A, "")
        for other in (B, C, D, A):
            both.same("EVAL", script, 1, A, other)
            both.same("MGET", *KEYS)
        sha = both.same("SCRIPT", "LOAD", script).text
        for other in ("", B, "", C):
            both.same("EVALSHA", sha, 1, A, other)
            both.same("MGET", *KEYS)
        both.same("FUNCTION", "FLUSH")
        body = script.replace("KEYS", "keys").replace("ARGV", "args")
        both.same(
            "FUNCTION", "LOAD", "#!lua name=rare\nredis.register_function('rare', "
            f"function(keys, args) {body} end)",
        )  # fmt: skip
        for other in ("", "", B, C):
            both.same("FCALL", "rare", 1, A, other)
            both.same("MGET", *KEYS)
        both.same("FUNCTION", "FLUSH")
        both.same("AUTH", "default", "")
        both.same("ACL", "DELUSER", "few")


def test_a_refused_command_in_the_middle_changes_nothing(pair: Pair) -> None:
    with pair.both() as both:
        for command in ("'SCAN', 0", "'SWAPDB', 0, 1", "'MOVE', KEYS[1], 1", "ARGV[1], 3"):
            script = f"redis.call('INCR', KEYS[1]) return redis.call({command})"
            for _ in range(2):
                reply = both.ours.ask("EVAL", script, 1, A, "select")
                assert reply.raw.startswith(b"-ERR threadis: "), reply
                assert b"sec:" not in reply.raw.lower()
            both.same("EXISTS", A)


@pytest.mark.parametrize("count", [200, 1500])
def test_very_many_undeclared_keys(pair: Pair, count: int) -> None:
    with pair.both() as both:
        many = f"for i = 1, {count} do redis.call('set', 'k' .. i, i) end return 'done'"
        both.same("EVAL", many, 0)
        both.same("DBSIZE")
        both.same("MGET", *(f"k{number}" for number in range(0, count, 7)))
        both.same(
            "EVAL", "for i = 1, ARGV[1] do redis.call('incr', KEYS[1] .. i) end", 1, "k", count
        )
        both.same(
            "EVAL", "for i = 1, ARGV[1] do redis.call('zadd', 'z', i, 'k' .. i) end"
            " for _, k in ipairs(redis.call('zrange', 'z', 0, -1)) do redis.call('del', k) end"
            " return redis.call('zcard', 'z')", 0, count,
        )  # fmt: skip
        both.same("DBSIZE")


def test_a_chain_of_undeclared_keys(pair: Pair) -> None:
    """Each run shows one more."""
    with pair.both() as both:
        for number in range(150):
            both.same("SET", f"chain:{number}", f"chain:{number + 1}")
        follow = (
            "local k, n = 'chain:0', 0 while k do n = n + 1 k = redis.call('get', k) end return n"
        )
        both.same("EVAL", follow, 0)


CHECKS = (
    "return {redis.acl_check_cmd('set', KEYS[1] or ARGV[1], 'v'),"
    " redis.acl_check_cmd('get', ARGV[1] or 'x'),"
    " redis.acl_check_cmd('del', 'other'), redis.acl_check_cmd('ping')}"
)


@pytest.mark.parametrize("user", ["default", "few"])
def test_a_script_is_told_the_truth_of_its_callers_rights(pair: Pair, user: str) -> None:
    with pair.both() as both:
        both.same("ACL", "SETUSER", "few", "on", ">p", "~u*", "+@scripting", "+get", "+set")
        if user == "few":
            both.same("AUTH", "few", "p")
        for _ in range(2):
            ask_rights(both)
        both.same("AUTH", "default", "")
        both.same("ACL", "DELUSER", "few")


def ask_rights(both: Both) -> None:
    for family in ("EVAL", "EVAL_RO"):
        both.same(family, CHECKS, 0, A)
        both.same(family, CHECKS, 1, A, B)
        both.same(family, CHECKS, 2, A, B, C)
        both.same(family, CHECKS, 1, A, "foreign")
        both.same(family, CHECKS, 0, "foreign")


def test_the_log_of_denials_names_no_socket_of_ours(pair: Pair) -> None:
    with pair.both() as both:
        both.same("ACL", "LOG", "RESET")
        both.same("ACL", "SETUSER", "few", "on", ">p", "~u*", "+@scripting", "+get", "+set")
        both.same("AUTH", "few", "p")
        for script in (GET, "return redis.call('GET', KEYS[1])"):
            both.same("EVAL", script, 0, "foreign")
            both.same("EVAL", script, 1, A, "foreign")
        both.same("GET", "foreign")
        both.same("AUTH", "default", "")
        logged = both.ours.ask("ACL", "LOG").raw
        assert b"few" in logged
        assert b".sock" not in logged
        both.same("ACL", "LOG", "RESET")
        both.same("ACL", "DELUSER", "few")

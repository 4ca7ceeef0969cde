"""Scripts and functions that SELECT another database."""

from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread

A, B, _, _ = spread("d", each=1)
LOOKS: Final = {  # what touches nothing there and writes nothing
    "only selects": "return redis.pcall('select', ARGV[1])",
    "reads before": f"local v = redis.call('GET', KEYS[1] or '{A}') "
    "redis.call('SELECT', ARGV[1]) return v",
    "there and back": "redis.call('select', ARGV[1]) return redis.call('select', 0)",
    "no database": "return redis.pcall('select', 'x' .. ARGV[1])",
    "far too many": "return redis.pcall('select', ARGV[1] .. '00')",
    "says": "redis.call('select', ARGV[1]) return redis.call('echo', 'there')",
    "fails": "redis.call('select', ARGV[1]) error('mine')",
}
REFUSED: Final = {
    "reads there": "redis.call('select', ARGV[1]) return redis.call('GET', KEYS[1] or 'other')",
    "writes there": "redis.call('select', ARGV[1]) return redis.call('INCR', KEYS[1] or 'other')",
    "writes here": "redis.call('INCR', KEYS[1] or 'other') return redis.call('select', ARGV[1])",
    "lists there": "redis.call('select', ARGV[1]) return redis.call('DBSIZE')",
    "lists and clears": "redis.call('DBSIZE') redis.call('select', ARGV[1]) redis.call('FLUSHDB')",
    "ours": "return redis.pcall('select', ARGV[1] + 7)",
}
NOTHING: Final = b"nothing was run\r\n"


def functions(both: Both, script: str) -> None:
    body = f"function(KEYS, ARGV) {script} end"
    library = f"#!lua name=there\nredis.register_function('there', {body})"
    both.same("FUNCTION", "LOAD", "REPLACE", library)


@pytest.mark.sample
@pytest.mark.parametrize("name", LOOKS)
def test_a_script_may_look_into_another_database(pair: Pair, protocol: int, name: str) -> None:
    script = LOOKS[name]
    with pair.both(protocol) as both:
        both.same("MSET", A, 1, B, 2)
        functions(both, script)
        for keys in ([], [A], [A, B]):
            for words in (("EVAL", script), ("EVAL_RO", script), ("FCALL", "there")):
                call: list[str | int] = [*words, len(keys), *keys, 9]
                both.same(*call)
                both.same("MGET", A, B)  # the caller stays where it is
                both.same("MULTI")
                both.same("SET", A, 1)
                both.same(*call)
                both.same("GET", A)
                both.same("EXEC")
        both.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_there_is_refused_before(pair: Pair, name: str) -> None:
    script = REFUSED[name]
    with pair.both() as both:
        functions(both, script)
        for words in (("EVAL", script), ("FCALL", "there")):
            for keys in ([], [A], [A, B]):
                reply = both.ours.ask(*words, len(keys), *keys, 9)
                assert reply.raw.startswith(b"-ERR threadis: "), reply
                assert reply.raw.endswith(NOTHING), reply
            for database in (9, 0):
                both.ours.ask("SELECT", database)
                assert both.ours.ask("DBSIZE").number == 0
        both.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("rules", ["+@all -select", "+@all", "+@all -get", "-@all +fcall +select"])
def test_a_restricted_user_selects_what_it_may(pair: Pair, rules: str) -> None:
    with pair.both() as both:
        for script in LOOKS.values():
            functions(both, script)
            both.same(
                "ACL",
                "SETUSER",
                "few",
                "on",
                ">p",
                "reset",
                "on",
                ">p",
                "~d*",
                "~s*",
                *rules.split(),
            )
            both.same("AUTH", "few", "p")
            both.same("FCALL", "there", 1, A, 9)
            both.same("FCALL", "there", 0, 9)
            both.same("EVAL", script, 1, A, 9)
            both.same("AUTH", "default", "")
        both.same("ACL", "DELUSER", "few")
        both.same("FUNCTION", "FLUSH")


def test_databases_of_a_user_are_its_own(pair: Pair) -> None:
    """Where servers know such rules: nothing is answered that the rules forbid."""
    with pair.both() as both:
        both.same("ACL", "SETUSER", "few", "on", ">p", "~*", "+@all", "db=0")
        if b"few" not in both.bare.ask("ACL", "USERS").raw:  # Redis 7.0 knows no such rules
            return
        both.same("AUTH", "few", "p")
        functions(both, LOOKS["only selects"])
        assert both.bare.ask("FCALL", "there", 1, A, 9).raw.startswith(b"-ERR ACL failure")
        both.same("FCALL", "there", 1, A, 9)
        both.same("AUTH", "default", "")
        both.same("ACL", "DELUSER", "few")
        both.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("keys", [[], [A], [A, B]], ids=["without keys", "one key", "several"])
def test_a_script_is_told_which_databases_its_user_may_use(pair: Pair, keys: list[str]) -> None:
    with pair.both() as both:
        if pair.server.kind != "valkey":
            return  # Redis has no such rules
        both.same("ACL", "SETUSER", "few", "on", ">p", "~*", "+@all", "db=0,3")
        try:
            both.same("AUTH", "few", "p")
            for asked in (
                "SELECT 1", "SELECT 3", "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "SWAPDB 0 3", "GET k",
                "MOVE k 1", "MOVE k 3", "COPY a b", "COPY a b DB 1", "COPY a b DB 3", "SELECT x",
            ):  # fmt: skip
                words = ",".join(f"'{word}'" for word in asked.split())
                script = f"return redis.acl_check_cmd({words}) and 1 or 0"
                both.same("EVAL", script, len(keys), *keys)
                both.same("EVAL", "redis.call('get','x') " + script, len(keys), *keys)
        finally:
            both.same("AUTH", "default", "x")
            both.same("ACL", "DELUSER", "few")

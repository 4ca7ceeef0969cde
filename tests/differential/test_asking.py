"""Scripts and functions that ask ``acl_check_cmd``: the truth about their caller, on every road."""

from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.test_pubsub import read_same, same_count

A, B, C, _ = spread("a", each=1)
COMMANDS: Final = [
    "'publish', 'c', 'm'", "'SPUBLISH', 'd', 'm'", "'ping'", "'config', 'get', 'x'", "'flushall'",
    "'pubsub', 'channels'", "'keys', '*'", "'scan', 0", "'dbsize'", "'swapdb', 0, 1", "'select', 1",
    "'move', 'a', 1", "'copy', 'a', 'b'", "'info'", "'memory', 'stats'", "'slowlog', 'reset'",
    "'migrate', 'h', 1, 'a', 0, 1", "'pfdebug', 'x', 'a'", "'get', 'b'", "'nosuch'", "'acl'",
    "'xreadgroup', 'group', 'g', 'c', 'streams', 'a', '>'", "'eval', 'x', 0", "'shutdown'",
]  # fmt: skip
USERS: Final = {
    "default": "",
    "all": "~* &* +@all",
    "most": "~a* &c +@all -publish -config -keys -flushall",
    "few": "~a* &d -@all +@scripting +multi +exec +config|get +memory|stats +spublish +select",
    "selector": "-@all +@scripting +multi +exec (~a* +get) (&c +publish) (+flushall)",
}
ASKED: Final = "if redis.acl_check_cmd('publish', ARGV[1], 'm') then "


def library(both: Both, script: str) -> None:
    function = f"function(KEYS, ARGV) {script} end"
    reads = f"function_name='ask_ro', callback={function}, flags={{'no-writes'}}"
    both.same(
        "FUNCTION", "LOAD", "REPLACE", "#!lua name=asking\n"
        f"redis.register_function('ask', {function}) redis.register_function{{{reads}}}",
    )  # fmt: skip


@pytest.mark.sample
@pytest.mark.parametrize("user", USERS)
def test_what_a_caller_may(pair: Pair, user: str) -> None:
    with pair.both() as admin, pair.both() as both:
        if user != "default":
            admin.same("ACL", "SETUSER", user, "on", "nopass", *USERS[user].split())
            both.same("AUTH", user, "")
        for command in COMMANDS:
            script = f"return redis.acl_check_cmd({command})"
            library(admin, script)
            for keys in ([], [A], [A, B]):
                for words in (("EVAL", script), ("EVAL_RO", script), ("FCALL", "ask")):
                    call: list[str | int] = [*words, len(keys), *keys]
                    both.same(*call)
                    both.same("MULTI")
                    both.same(*call)
                    both.same("EXEC")
                both.same("FCALL_RO", "ask_ro", len(keys), *keys)
            words_asked = command.replace("'", "").split(", ")
            both.same("EVAL", "return redis.acl_check_cmd(unpack(ARGV))", 1, A, *words_asked)
        admin.same("ACL", "DELUSER", user if user != "default" else "nobody")
        admin.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("then", ["'publish', ARGV[1], 'm'", "'incr', KEYS[1]"])
def test_what_is_done_if_the_caller_may(pair: Pair, user: str, then: str) -> None:
    script = f"{ASKED} return redis.call({then}) end return 'may not'"
    with pair.both() as admin, pair.both() as both, pair.both() as listening:
        library(admin, script)
        if user != "default":
            admin.same("ACL", "SETUSER", user, "on", "nopass", *USERS[user].split())
            both.same("AUTH", user, "")
        same_count(listening, 2, "SUBSCRIBE", "c", "e")
        for channel in ("c", "e", "d"):
            for keys in ([A], [A, B], [C]):
                both.same("EVAL", script, len(keys), *keys, channel)
                both.same("FCALL", "ask", len(keys), *keys, channel)
        admin.same("PUBLISH", "c", "end")
        while b"end" not in read_same(listening)[0]:
            pass
        admin.same("MGET", A, B, C)
        admin.same("ACL", "DELUSER", user if user != "default" else "nobody")
        admin.same("FUNCTION", "FLUSH")


def test_what_may_not_be_run_on_copies_is_not_asked_about_in_vain(pair: Pair) -> None:
    """A guard is denied what the script might do; the answer would be about the guard."""
    with pair.both() as both:
        for name in ("scan", "flushall", "swapdb", "select"):
            script = f"if redis.acl_check_cmd('{name}') then return redis.call('{name}', 1) end"
            reply = both.ours.ask("EVAL", "redis.call('incr', KEYS[1]) " + script, 2, A, B)
            assert reply.raw.startswith(b"-ERR threadis: "), reply
            both.same("MGET", A, B)
        both.same("EVAL", f"{ASKED} return 1 end local call = redis.call call('x')", 2, A, B, "c")
        both.same("SET", A, 1)
        listing = "if redis.acl_check_cmd('keys', '*') then return redis.call('keys', '*') end"
        both.same("EVAL", listing, 1, B)

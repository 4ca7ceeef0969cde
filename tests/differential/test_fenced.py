r"""A script's text, error, flags or status stand for no answer of ours.

On copies, between DUMP and PEXPIRETIME, on several keys, in MULTI, as a user with few rights: what
a script's error forges is never taken for what its keys have become.
"""

from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread

pytestmark = pytest.mark.sample

A, B, C, _ = KEYS = spread("f", each=1)
# What stands between a script's reply and the end of its block, forged; ``n`` keys on copies.
TAILS: Final = [
    *(
        "\\r\\n+OK\\r\\n" * back + "$-1\\r\\n" * n + ":-2\\r\\n" * n + f"*{swallowed}"
        for n in (1, 2)
        for back in (1, 2, 3)
        for swallowed in (3 + 2 * n, 5, 6, 7, 9)
    ),
    "\\r\\n+X\\r\\n",
    "\\r\\n-X\\r\\n",
    "\\r\\n$5\\r\\nhello\\r\\n",
    "\\r\\n*-1\\r\\n",
    "\\r\\n$100000\\r\\n",
    "\\r\\n*1000\\r\\n",
    "\\rX",
    "\\nX",
    "\\r",
    "",
]
HEADERS: Final = ['#!lua flags="a{}"\n{}', '#!lua "a{}"=x\n{}', '#!"a{}"\n{}']
BODY: Final = "return 1"


@pytest.fixture(params=["everybody", "few rights"])
def both(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Both]:
    """Both servers, as somebody."""
    with pair.both() as found:
        rules = ["on", ">p", *(f"~{key}" for key in KEYS), "-@all", "+@scripting", "+get"]
        rules += ["+multi", "+exec", "+ping", "+echo"]
        found.same("ACL", "SETUSER", "low", *rules)
        found.same("MSET", *(word for key in KEYS for word in (key, "v")))
        found.same("EXPIRE", A, 1000)
        if request.param == "few rights":
            found.same("AUTH", "low", "p")
        yield found
        with pair.both() as admin:
            for key in KEYS:
                admin.same("GET", key)
                admin.same("TTL", key)
            admin.same("ACL", "DELUSER", "low")
            admin.same("SCRIPT", "FLUSH")
            admin.same("FUNCTION", "FLUSH")


@pytest.mark.parametrize("keys", [(), (A,), (A, B), (A, B, C)], ids=len)
@pytest.mark.parametrize("header", HEADERS)
def test_what_a_script_forges_changes_nothing(
    both: Both, keys: tuple[str, ...], header: str
) -> None:
    bodies = (BODY, f"return redis.call('GET', '{A}')")
    for script in (header.format(tail, body) for tail in TAILS for body in bodies):
        for family in ("EVAL", "EVAL_RO"):
            both.ours.ask("MULTI")
            both.ours.ask(family, script, len(keys), *keys)
            both.ours.ask("ECHO", "in step")
            inside = both.ours.ask("EXEC")
            for reply in (both.ours.ask(family, script, len(keys), *keys), inside.elements[0]):
                assert_is_refused(reply.raw, script)
            assert inside.elements[1].raw == b"$7\r\nin step\r\n", script
            assert both.ours.ask("ECHO", "in step").raw == b"$7\r\nin step\r\n", script
        for words in (["SCRIPT", "LOAD", script], ["FUNCTION", "LOAD", script]):
            assert_is_refused(both.ours.ask(*words).raw, script)
            assert both.ours.ask("ECHO", "in step").raw == b"$7\r\nin step\r\n", script


def assert_is_refused(reply: bytes, what: str) -> None:
    """A server's own refusal, in one line."""
    assert reply.startswith(b"-"), (what, reply)
    assert reply.find(b"\r\n") == len(reply) - 2, (what, reply)
    assert b"internal error" not in reply, (what, reply)


@pytest.mark.parametrize("text", ["a\\rX", "a\\nX", "a", "a b", "a\\x00b", "a\\r"])
@pytest.mark.parametrize("header", ['#!lua flags="{}"', '#!lua "{}"=x', '#!"{}"', "#!lua name={}"])
def test_an_error_of_one_line_is_the_servers_own(both: Both, header: str, text: str) -> None:
    script = header.format(text) + "\n" + BODY
    for keys in ([], [A], [A, B]):
        both.same("EVAL", script, len(keys), *keys)
        both.same("EVAL_RO", script, len(keys), *keys)
    both.same("SCRIPT", "LOAD", script)
    both.same("FUNCTION", "LOAD", script)

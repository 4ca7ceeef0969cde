r"""Replies that a client forges, through texts that servers put into theirs, reach nobody else.

A server that copies a client's ``\r\n`` into a line of a reply writes more than one reply, or the
beginning of a longer one. Each injection is sent while others use the same instances.
"""

from typing import Final

import pytest

from differential.pair import Pair
from differential.wire import Connection, pack

# What is forged: a status, an error, and the beginning of more than there is.
FRAMES: Final = {
    "status": "a\r\n+FORGED",
    "error": "a\r\n-ERR FORGED",
    "bulk": "a\r\n$100000\r\n",
    "array": "a\r\n*5\r\n",
}
QUOTED: Final = {
    name: text.replace("\r", "\\r").replace("\n", "\\n") for name, text in FRAMES.items()
}
LIBRARY: Final = "#!lua name=forge\nredis.register_function('f', function(k, a) %s end)"

# Sources of Lua, by where the text ends up in the reply.
BODIES: Final = {
    "error": "error('{}')",
    "error of a table": "error({{err='{}'}})",
    "err field": "return {{err='{}'}}",
    "err field inside": "return {{1, {{err='{}'}}, 2}}",
    "error_reply": "return redis.error_reply('{}')",
    "status_reply": "return redis.status_reply('{}')",
    "ok field": "return {{ok='{}'}}",
    "command": "return redis.call('{}')",
    "caught command": "return redis.pcall('{}')",
    "global": "return _G['{}']",
    "map of RESP3": "redis.setresp(3) return {{map={{['{}']=1}}}}",
    "verbatim": "redis.setresp(3) return {{verbatim_string={{string='x', format='{}'}}}}",
    "big number": "redis.setresp(3) return {{big_number='{}'}}",
}
HEADERS: Final = ['#!lua flags="{}"\nreturn 1', '#!lua "{}"=x\nreturn 1', '#!"{}"\nreturn 1']


def injections(frame: str) -> dict[str, list[list[str]]]:
    """Every injection, as the commands of one client; ``@`` stands for a key."""
    text, quoted = FRAMES[frame], QUOTED[frame]
    found: dict[str, list[list[str]]] = {}
    for name, body in BODIES.items():
        script = body.format(quoted)
        found[f"EVAL {name}"] = [["EVAL", script, "1", "@"]]
        found[f"EVAL_RO {name}"] = [["EVAL_RO", script, "0"]]
        found[f"FCALL {name}"] = [
            ["FUNCTION", "LOAD", "REPLACE", LIBRARY % script],
            ["FCALL", "f", "1", "@"],
        ]
        found[f"in MULTI {name}"] = [["MULTI"], ["EVAL", script, "1", "@"], ["EXEC"]]
    for number, header in enumerate(HEADERS):
        script = header.format(quoted)
        found[f"EVAL header {number}"] = [["EVAL", script, "1", "@"]]
        found[f"EVAL_RO header {number}"] = [["EVAL_RO", script, "0"]]
        found[f"SCRIPT LOAD header {number}"] = [["SCRIPT", "LOAD", script]]
        found[f"FUNCTION LOAD header {number}"] = [["FUNCTION", "LOAD", script]]
        found[f"in MULTI header {number}"] = [["MULTI"], ["EVAL", script, "1", "@"], ["EXEC"]]
    for number, words in enumerate([
        ["EVAL", f"syntax error '{text}", "0"],
        ["EVAL", "return ARGV[1]", "0", text],
        ["EVAL", "return {err=ARGV[1]}", "0", text],
        ["EVAL", "return {ok=ARGV[1]}", "1", "@", text],
        ["EVAL", "return redis.call(ARGV[1])", "1", "@", text],
        ["EVAL", "error(KEYS[1])", "1", text],
        ["EVALSHA", text, "0"],
        ["EVALSHA", text[:1] * 40, "1", text],
        ["FCALL", text, "0"],
        ["FCALL", text, "1", "@"],
        ["FUNCTION", "LIST", text],
        ["FUNCTION", "LIST", "LIBRARYNAME", text],
        ["FUNCTION", "DELETE", text],
        ["FUNCTION", "RESTORE", text],
        ["FUNCTION", "FLUSH", text],
        ["FUNCTION", text],
        ["SCRIPT", text],
        ["SCRIPT", "FLUSH", text],
        [text, "x"],
        ["CLIENT", text],
        ["CONFIG", "GET", text],
        ["CONFIG", "SET", text, "x"],
        ["SET", "@", "x", text],
        ["OBJECT", text, "@"],
        ["XADD", "@", text, "f", "v"],
        ["ZADD", "@", text, "m"],
        ["ACL", "SETUSER", "forger", text],
        ["ACL", "DRYRUN", text, "get"],
        ["AUTH", text, text],
        ["HELLO", text],
        ["SELECT", text],
    ]):  # fmt: skip
        found[f"argument {number} {words[0][:8].strip()}"] = [words]
    return found


@pytest.mark.parametrize("frame", list(FRAMES))
def test_a_forged_reply_reaches_nobody_else(pair: Pair, protocol: int, frame: str) -> None:
    other = pair.ours()
    forger = pair.ours()
    if protocol == 3:
        forger.ask("HELLO", 3)
        other.ask("HELLO", 3)
    try:
        for name, commands in injections(frame).items():
            for key in ("forge:a", "forge:b"):
                words = [[key if word == "@" else word for word in command] for command in commands]
                forger.send(b"".join(pack(*command) for command in words))
                check_other(other, key, f"{name}: {commands}")
                for command in words:
                    assert forger.read().raw, command
                # Exactly one reply to each: the next one is the next command's.
                assert forger.ask("ECHO", "in step").raw == b"$7\r\nin step\r\n", f"{name}: {words}"
    finally:
        other.close()
        forger.close()
        with pair.both() as both:
            both.ours.ask("ACL", "DELUSER", "forger")
            both.ours.ask("FUNCTION", "FLUSH")
            both.ours.ask("SCRIPT", "FLUSH")


def check_other(other: Connection, key: str, what: str) -> None:
    """Another client, on the same instances, pipelined: every reply is its own."""
    stream: list[tuple[list[str], bytes]] = [
        (["SET", f"{{{key}}}mine", "own"], b"+OK\r\n"),
        (["GET", f"{{{key}}}mine"], b"$3\r\nown\r\n"),
        (["EVAL", "return redis.call('GET', KEYS[1])", "1", f"{{{key}}}mine"], b"$3\r\nown\r\n"),
        (["PING"], b"+PONG\r\n"),
        (["STRLEN", f"{{{key}}}mine"], b":3\r\n"),
    ]
    other.send(b"".join(pack(*words) for words, _ in stream))
    for words, expected in stream:
        assert other.read().raw == expected, f"{words} beside {what}"

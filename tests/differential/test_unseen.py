"""What is ours is seen by nobody: not through a script, not in SLOWLOG, by no count of INFO."""

from collections import Counter
from typing import Final

import pytest

from differential.pair import Pair
from differential.test_keyspace import spread

A, B, C, D = spread("u", each=1)  # on four instances
ASKED: Final = [
    "INFO", "INFO clients", "LASTSAVE", "MEMORY STATS", "MEMORY DOCTOR", "MEMORY MALLOC-STATS",
    "MEMORY PURGE", "SLOWLOG GET", "SLOWLOG LEN", "SLOWLOG RESET", "PUBSUB CHANNELS",
    "PUBSUB NUMPAT", "PUBSUB NUMSUB a", "PUBSUB SHARDCHANNELS", "PUBSUB SHARDNUMSUB a",
]  # fmt: skip


@pytest.mark.parametrize("call", ["call", "pcall"])
@pytest.mark.parametrize("keys", [(), (A,), (A, B)])
def test_no_script_is_told_of_one_instance(pair: Pair, keys: tuple[str, ...], call: str) -> None:
    with pair.both() as both:
        both.ours.ask("SLOWLOG", "RESET")
        for line in ASKED:
            words = ",".join(f"'{word}'" for word in line.split())
            reply = both.ours.ask("EVAL", f"return redis.{call}({words})", len(keys), *keys)
            assert reply.is_error, f"{line}: {reply.raw[:200]!r}"
            assert reply.text.endswith(b"inside a script would see one instance only"), reply.raw
            # Also if its name is not there to be read.
            body = f"local words = {{{words}}} return redis.{call}(unpack(words))"
            assert both.ours.ask("EVAL", body, len(keys), *keys).is_error
        both.same("EVAL", "return redis.call('memory','usage',KEYS[1])", 1, A)
        both.same("EVAL", "return redis.call('command','count')", 0)


SCRIPTS: Final = [
    ("redis.call('set',KEYS[1],1) redis.call('incr',KEYS[1])", 1, A),
    ("redis.call('set',ARGV[1],1) return redis.call('get',KEYS[1])", 1, A, A),
    ("redis.call('set',KEYS[1],1) redis.call('set',ARGV[1],1)", 1, A, B),
    ("redis.call('set',KEYS[1],1) return redis.call('get',KEYS[2])", 2, A, C),
    ("for i=1,5 do redis.call('incr','u'..i) end", 0),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_slow_log_has_what_clients_run(pair: Pair, script: tuple[str | int, ...]) -> None:
    """All of them, in their order, and nothing of ours; Redis 7.0 does not tell whose a script's
    commands are, so these are missing there.
    """
    with pair.both() as both:
        try:
            both.same("CONFIG", "SET", "slowlog-log-slower-than", 0)
            for _ in range(2):
                both.same("SLOWLOG", "RESET")
                both.same("EVAL", *script)
                found = []
                for side in (both.bare, both.ours):
                    entries = side.ask("SLOWLOG", "GET", -1).elements
                    words = [[one.text for one in entry.elements[3].elements] for entry in entries]
                    found.append(words[::-1])
                bare, ours = found
                if pair.server.kind != "valkey":
                    bare = [words for words in bare if words[0].isupper()]
                assert ours == bare
        finally:
            both.same("CONFIG", "SET", "slowlog-log-slower-than", 10000)


def test_refusals_of_ours_are_not_counted(pair: Pair) -> None:
    """What a script may not touch at first is lent to it, and nobody was denied anything."""

    def denied() -> list[Counter[str]]:
        texts = [side.ask("INFO", "stats").text.decode() for side in (both.bare, both.ours)]
        lines = [[line.split(":") for line in text.split() if "acl_acc" in line] for text in texts]
        return [Counter({name: int(count) for name, count in found}) for found in lines]

    with pair.both() as both, pair.both() as other:
        before = denied()
        for script in SCRIPTS:
            both.same("EVAL", *script)
        both.same("ACL", "SETUSER", "u", "on", "nopass", f"~{A}", "+@all", "-incr")
        other.same("AUTH", "u", "x")
        other.same("GET", B)
        other.same("INCR", A)
        other.same("EVAL", "return redis.pcall('incr',KEYS[1])", 1, A)
        bare, ours = [after - count for after, count in zip(denied(), before, strict=True)]
        assert ours == bare
        both.same("ACL", "DELUSER", "u")

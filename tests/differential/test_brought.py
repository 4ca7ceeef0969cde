"""Scripts are there from their place in a transaction on, and only if that runs."""

import hashlib
from typing import Final

import pytest

from differential.pair import Pair
from differential.test_keyspace import spread

pytestmark = pytest.mark.sample

A, B, C, D = spread("h", each=1)
BODIES: Final = {
    "declared": "return redis.call('INCR', KEYS[1])",
    "undeclared": "redis.call('INCR', KEYS[1] .. ARGV[1]) return redis.call('INCR', KEYS[1])",
    "no keys": "return 7",
    "wrong": "return return",
}
LIBRARY: Final = "#!lua name=brought\nredis.register_function('brought', function() return 1 end)"
BREAK: Final = [f"WATCH {A}", f"other SET {A} 5"]  # then EXEC is answered nil
LOOK: Final = ["SCRIPT EXISTS $H", f"EVALSHA $H 1 {A} x", f"MGET {A} {B}"]
EVAL, EVALSHA = f"EVAL $S 1 {A} x", f"EVALSHA $H 1 {A} x"

PROGRAMS: Final[dict[str, list[str]]] = {
    "EVALSHA before EVAL": ["MULTI", EVALSHA, EVAL, EVALSHA, f"EVALSHA $H 1 {B} x", "EXEC", *LOOK],
    "among others": [
        "MULTI", f"SET {B} 1", EVALSHA, f"MSET {C} 1 {D} 2", EVAL, f"RENAME {C} {D}", EVALSHA,
        "EXEC", *LOOK,
    ],
    "only EVALSHA": ["MULTI", EVALSHA, "EXEC", "MULTI", EVALSHA, EVALSHA, f"SET {B} 1", "EXEC"],
    "watched": [f"WATCH {A}", "MULTI", EVALSHA, f"INCR {A}", "EXEC", *LOOK],
    "watched and changed": [*BREAK, "MULTI", EVALSHA, f"INCR {A}", "EXEC", *LOOK],
    "in another database": [
        "MULTI", "SELECT 1", EVALSHA, f"SET {A} 1", "SELECT 0", EVALSHA, f"SET {A} 2", "EXEC",
        *LOOK,
    ],
    "reading": [
        "MULTI", f"EVALSHA_RO $H 1 {A} x", f"EVAL_RO $S 1 {A} x", f"EVALSHA_RO $H 1 {A} x",
        "EXEC", *LOOK,
    ],
    "names in capitals": ["MULTI", "EVALSHA $U 1 k x", "EVAL $S 1 k x", "EVALSHA $U 1 k x", "EXEC"],
    "odd names": ["MULTI", "EVALSHA x 1 k", "EVALSHA '' 0", f"SET {A} 1", f"SET {B} 1", "EXEC"],
    "EXISTS": [
        "MULTI", "SCRIPT EXISTS $H x $U", EVAL, "SCRIPT EXISTS $H x $U", f"SET {B} 1",
        f"EVAL $S 1 {B} x", "SCRIPT EXISTS x $H", "EXEC", *LOOK,
    ],
    "EXISTS of one that is there": [
        EVAL, "MULTI", "SCRIPT EXISTS $H", f"SET {B} 1", EVAL, "SCRIPT EXISTS $H", "EXEC", *LOOK,
    ],
    "SHOW": ["MULTI", "SCRIPT SHOW $H", EVAL, f"SET {B} 1", "SCRIPT SHOW $H", "EXEC", *LOOK],
    "broken": [*BREAK, "MULTI", EVAL, f"SET {B} 1", "EXEC", *LOOK],
    "broken, LOAD": [*BREAK, "MULTI", "SCRIPT LOAD $S", f"SET {B} 1", EVALSHA, "EXEC", *LOOK],
    "broken, FLUSH": [EVAL, *BREAK, "MULTI", "SCRIPT FLUSH", f"SET {B} 1", "EXEC", *LOOK],
    "refused": ["MULTI", EVAL, "SCRIPT LOAD $S", "NOSUCH", "EXEC", *LOOK],
    "refused, FLUSH": [EVAL, "MULTI", "SCRIPT FLUSH", f"SET {B}", "EXEC", *LOOK],
    "discarded": ["MULTI", EVAL, "SCRIPT LOAD $S", "DISCARD", *LOOK],
    "FLUSH before EVALSHA": [
        EVAL, "MULTI", "SCRIPT FLUSH", EVALSHA, "SCRIPT EXISTS $H", f"SET {B} 1", "EXEC", *LOOK,
    ],
    "FLUSH before EVAL": [
        EVAL, "MULTI", "SCRIPT FLUSH SYNC", EVALSHA, "SCRIPT EXISTS $H", EVAL, EVALSHA,
        "SCRIPT EXISTS $H", f"SET {B} 1", "EXEC", *LOOK,
    ],
    "no FLUSH": [EVAL, "MULTI", "SCRIPT FLUSH NOW", EVALSHA, f"SET {B} 1", "EXEC", *LOOK],
    "FLUSH behind all": [EVAL, "MULTI", f"SET {B} 1", EVALSHA, "SCRIPT FLUSH", "EXEC", *LOOK],
    "LOAD before EVALSHA": ["MULTI", "SCRIPT LOAD $S", EVALSHA, f"SET {B} 1", "EXEC", *LOOK],
    "LOAD behind EVALSHA": ["MULTI", EVALSHA, f"SET {B} 1", "SCRIPT LOAD $S", "EXEC", *LOOK],
    "broken, functions": [
        "FUNCTION FLUSH", *BREAK, "MULTI", "FUNCTION LOAD $L", f"SET {B} 1", "EXEC",
        "FCALL brought 0", "FUNCTION LOAD $L", *BREAK, "MULTI", "FUNCTION DELETE brought",
        f"SET {B} 1", "EXEC", "FCALL brought 0", *BREAK, "MULTI", "FUNCTION FLUSH", f"SET {B} 1",
        "EXEC", "FCALL brought 0", "MULTI", "FUNCTION FLUSH", "NOSUCH", "EXEC", "FCALL brought 0",
    ],
    "functions": [
        "FUNCTION FLUSH", "MULTI", "FUNCTION LOAD $L", "FCALL brought 0", f"SET {B} 1", "EXEC",
        "MULTI", "FUNCTION DELETE brought", "FCALL brought 0", f"SET {B} 1", "EXEC",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", list(PROGRAMS))
@pytest.mark.parametrize("body", list(BODIES))
def test_same_as_one_server(pair: Pair, protocol: int, body: str, name: str) -> None:
    script = f"{BODIES[body]} -- {name} {protocol}"
    sha1 = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    meant = {"$S": script, "$H": sha1, "$U": sha1.upper(), "$L": LIBRARY, "''": ""}
    with pair.both(protocol) as both, pair.both() as other:
        both.same("SCRIPT", "FLUSH")
        for line in PROGRAMS[name]:
            words = [meant.get(word, word) for word in line.split()]
            if words[0] == "other":
                other.same(*words[1:])
            else:
                both.same(*words)

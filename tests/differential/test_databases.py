"""Databases that commands name: those of ours are out of range, on every road."""

from typing import Final

import pytest

from differential.pair import Pair
from differential.test_keyspace import spread

A, B, C, D = spread("d:", each=1)  # on four instances
COMMANDS: Final = [
    "SELECT {}", f"MOVE {A} {{}}", "MOVE missing {}", f"COPY {A} {B} DB {{}}",
    f"COPY {A} {{{A}}} DB {{}}", f"COPY {A} {{{A}}} REPLACE DB {{}}", f"COPY {A} {B} DB {{}} DB 1",
    f"COPY {A} {B} DB 1 DB {{}}", "COPY DB {}", f"COPY {A} DB {{}}", "SWAPDB 0 {}", "SWAPDB {} 1",
]  # fmt: skip
RULES: Final = ["", "db=0,1", "-@all (~* +@all db=0,1)"]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("db", ["1", "16", "18", "-1"])
def test_out_of_range(pair: Pair, rules: str, db: str) -> None:
    with pair.both() as admin:
        made = admin.same_line(f"ACL SETUSER dan reset on nopass ~* &* +@all {rules}")
        for words in () if made.is_error else COMMANDS:
            for around in ((), ("PING",), (f"MSET {B} 1 {C} 2 {D} 3",), (f"LCS {B} {C}", "PING")):
                admin.same("FLUSHALL")
                admin.same("SET", A, "v")
                with pair.both() as both:
                    both.same("AUTH", "dan", "x")
                    call = [words.replace("{}", db).replace(f"{{{A}}}", f"{{{A}}}copy")]
                    for line in ["MULTI", *call, *around, "EXEC"] if around else call:
                        both.same_line(line)
                admin.same("MGET", A, B)
                admin.same("DBSIZE")
        admin.same("ACL", "DELUSER", "dan")

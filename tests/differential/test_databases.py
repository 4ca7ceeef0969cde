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


@pytest.mark.sample
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


WRITES: Final = [
    f"GET {A}", f"MGET {A} {B} {C} {D}", f"DEL {A} {B} {C} {D}", f"MSET {A} 1 {B} 2", "FLUSHDB",
    "FLUSHALL", f"SUNIONSTORE {A} {B} {C}", f"RENAME {A} {B}", f"LCS {A} {B}", "DBSIZE",
    "KEYS *", "RANDOMKEY", "SCAN 0", f"MOVE {A} 0", f"COPY {A} {B} DB 0", f"BLPOP {A} {B} 1",
    f"SORT {A} BY x_*", f"WATCH {A}", f"EXISTS {A} {B}",
    f"EVAL return(redis.call('GET',KEYS[1])) 1 {A}", "SELECT 1", "EVAL return(1) 0",
    f"EVAL return(redis.call('SET',ARGV[1],'x')) 0 {A}", "SWAPDB 0 1", "PING",
    f"PFCOUNT {A} {B}",
]  # fmt: skip


@pytest.mark.parametrize("road", ["rights that change", "AUTH in it"])
def test_who_is_in_a_database_that_is_not_his(pair: Pair, road: str) -> None:
    """Nothing is done in another one instead."""
    with pair.both() as admin:
        if admin.same("ACL", "SETUSER", "eve", "db=0,1").is_error:  # Redis 7.0 knows no such rules
            return
        for line in WRITES:
            admin.same_line("ACL SETUSER eve reset on nopass ~* &* +@all db=0,1")
            admin.same("FLUSHALL")
            for db in (1, 0):
                admin.same("SELECT", db)
                admin.same("MSET", *(word for key in (A, B, C, D) for word in (key, f"{key} {db}")))
            with pair.both() as both:
                if road == "AUTH in it":
                    both.same("SELECT", 1)
                both.same("AUTH", "eve", "x")
                both.same("SELECT", 1)
                admin.same_line("ACL SETUSER eve resetdbs db=0")
                for words in (line, "MULTI", line, "EXEC", f"GET {A}"):
                    both.same_line(words)
            for db in (1, 0):
                admin.same("SELECT", db)
                admin.same("MGET", A, B, C, D)
                admin.same("DBSIZE")
        admin.same("ACL", "DELUSER", "eve")


@pytest.mark.parametrize("rules", ["db=1,2,5", "db=0", "db=0 (+get ~* db=2)"])
@pytest.mark.parametrize("around", ["", f"MSET {A} 1 {B} 2 {C} 3", "DBSIZE"])
def test_what_is_queued_is_judged_where_it_will_run(pair: Pair, rules: str, around: str) -> None:
    with pair.both() as admin:
        if admin.same_line(f"ACL SETUSER finn reset on nopass ~* &* +@all {rules}").is_error:
            return
        for lines in (
            ["SELECT 2", f"SET {A} 1"], ["SELECT 2"], ["PING", f"SET {A} 1"],
            ["SELECT 99", f"SET {A} 1"], ["SELECT x", f"SET {A} 1"], ["SELECT 3", f"SET {A} 1"],
            ["SELECT 2", "SELECT 1", f"GET {A}"], ["SELECT 2", "SELECT 0", f"SET {A} 1"],
            [f"GET {A}", "SELECT 2", f"GET {A}"], ["SELECT 2", f"WATCH {A}", f"GET {B}"],
            ["SELECT 2", "NOSUCH", f"SET {A} 1"], ["SELECT 2", f"GET {A}", f"MOVE {A} 0"],
            [f"EVAL return(redis.call('SET',ARGV[1],'x')) 0 {A}", "SELECT 2", f"GET {A}"],
        ):  # fmt: skip
            admin.same("FLUSHALL")
            for start in (0, 1):
                with pair.both() as both:
                    both.same("SELECT", start)
                    both.same("AUTH", "finn", "x")
                    for line in ["MULTI", *lines, *([around] if around else []), "EXEC"]:
                        both.same_line(line)
                    both.same("GET", A)
                for db in range(3):
                    admin.same("SELECT", db)
                    admin.same("MGET", A, B, C)
                admin.same("SELECT", 0)
        admin.same("ACL", "DELUSER", "finn")

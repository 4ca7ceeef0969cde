"""Commands over keys of all four instances, and over whole databases."""

import re
from collections import Counter

import pytest

from differential.conftest import INSTANCES, check_placement, owner, scan
from differential.pair import Pair
from differential.wire import Word

MANY = [b"key:%d" % number for number in range(10_000)]


def spread(prefix: str, each: int = 2) -> list[str]:
    """Keys of every instance, mixed."""
    by_owner: dict[int, list[str]] = {index: [] for index in range(INSTANCES)}
    number = 0
    while any(len(keys) < each for keys in by_owner.values()):
        keys = by_owner[owner(f"{prefix}:{number}".encode())]
        if len(keys) < each:
            keys.append(f"{prefix}:{number}")
        number += 1
    return [keys[at] for at in range(each) for keys in by_owner.values()]


def test_the_keys_of_these_tests_are_everywhere() -> None:
    assert Counter(owner(key.encode()) for key in spread("a")) == dict.fromkeys(range(4), 2)


def test_many_keys_order_duplicates_and_misses(pair: Pair, protocol: int) -> None:
    keys, none = spread("a"), spread("none")
    twice = [*keys, *reversed(keys), keys[0], none[0], keys[0], *none]
    with pair.both(protocol) as both:
        both.same("MSET", *(word for key in keys for word in (key, f"value of {key}")))
        assert len(both.same("MGET", *twice).elements) == len(twice)
        assert both.same("EXISTS", *twice).number == len(keys) * 2 + 2
        assert both.same("TOUCH", *twice).number == len(keys) * 2 + 2
        both.same("MSET", keys[0], 1, keys[1], 2, keys[0], 3, keys[1], 4, keys[2], "", "", "x")
        both.same("MGET", *keys, "")
        assert both.same("DEL", keys[0], keys[1], keys[0], none[0]).number == 2
        assert both.same("UNLINK", *twice).number == len(keys) - 2
        both.same("MGET", *twice)
        assert both.same("DBSIZE").number == 1


def test_other_types_are_nothing_to_mget_and_overwritten_by_mset(pair: Pair, protocol: int) -> None:
    keys = spread("a")
    with pair.both(protocol) as both:
        for key in keys[::2]:
            both.same("RPUSH", key, "a")
        both.same("MSET", *(word for key in keys[1::2] for word in (key, "text")))
        both.same("MGET", *keys)
        both.same("EXISTS", *keys)
        both.same("MSET", *(word for key in keys for word in (key, "now text")))
        both.same("MGET", *keys)


@pytest.mark.parametrize("name", ["MGET", "MSET", "MSETNX", "DEL", "UNLINK", "EXISTS", "TOUCH"])
def test_too_few_words(pair: Pair, name: str) -> None:
    keys = spread("a")
    with pair.both() as both:
        both.same(name)
        if name == "MSET":
            for count in (1, 3, 5, 7):
                both.same(name, *keys[:count])
        assert both.same("DBSIZE").number == 0


def test_msetex(pair: Pair, protocol: int) -> None:
    keys = spread("a")
    flat: list[Word] = [word for key in keys for word in (key, f"value of {key}")]
    with pair.both(protocol) as both:
        if both.same("MSETEX", len(keys), *flat).is_error:
            assert pair.server.kind == "redis"
            return
        both.same("MGET", *keys)
        both.same("MSETEX", len(keys), *flat, "EX", 1000)
        assert all(both.same("TTL", key).number > 900 for key in keys)
        both.same("MSETEX", 2, *flat[:4], "KEEPTTL")
        assert both.same("TTL", keys[0]).number > 900
        both.same("MSETEX", len(keys), *flat, "PXAT", 99999999999123)
        assert {both.same("PEXPIRETIME", key).number for key in keys} == {99999999999123}
        for number in (-1, 0, 1, 3, len(keys) + 1, "x", "", "99999999999999999999"):
            both.same("MSETEX", number, *flat)
        both.same("MSETEX", 2, *flat[:4], "EX", 0)
        both.same("MSETEX", 2, *flat[:4], "EX")
        both.same("MSETEX", 2, *flat[:4], "WHAT")
        both.same("MSETEX", 2, *flat[:3])
        both.same("MSETEX", 2, *flat[:4], "NX")
        both.same("MSETEX", 2, *flat[:4], "XX")
        both.same("MSETEX", 2, *flat[:2], "new", "value", "NX")
        both.same("MSETEX", 2, *flat[:2], "new", "value", "XX")
        both.same("MGET", *keys)


def test_hash_tags(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for name in ("{a}1", "x{a}2", "{a}{b}", "{}a", "{}b", "{", "}{", "a{}{b}", "{{a}}", "{a"):
            both.same("SET", name, name)
            both.same("GET", name)
        both.same("RENAME", "{a}1", "new{a}{b}")
        both.same("MGET", "{a}1", "x{a}2", "{a}{b}", "{}a", "{}b", "{", "}{", "new{a}{b}")
        both.same("KEYS", "*")


def test_ten_thousand_keys_at_once(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("MSET", *(word for key in MANY for word in (key, key[::-1])))
        assert both.same("DBSIZE").number == len(MANY)
        reply = both.same("MGET", *reversed(MANY))
        assert [value.text for value in reply.elements] == [key[::-1] for key in reversed(MANY)]
        both.same("EXISTS", *MANY, *MANY)
        check_placement(pair.threadis)
        both.same("UNLINK", *MANY[::2], *MANY[::4])
        both.same("DBSIZE")
        both.same("DEL", *MANY)
        assert both.same("DBSIZE").number == 0


def test_scan_shows_every_key_once(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("MSET", *(word for key in MANY[:3000] for word in (key, "v")))
        for key in spread("list", 5):
            both.same("RPUSH", key, "a")
        for options in ((), ("COUNT", 1), ("COUNT", 7), ("COUNT", 100_000)):
            found: list[bytes] = []
            cursors: list[bytes] = []
            while not cursors or cursors[-1] != b"0":
                reply = both.ours.ask("SCAN", cursors[-1] if cursors else 0, *options)
                cursors.append(reply.elements[0].text)
                found += [key.text for key in reply.elements[1].elements]
            assert all(re.fullmatch(rb"0|[1-9]\d{0,19}", cursor) for cursor in cursors)
            assert max(map(int, cursors)) < 2**64
            assert len(set(cursors)) == len(cursors)
            assert len(found) == 3000 + 5 * INSTANCES
            assert len(set(found)) == len(found)
        assert sorted(scan(both.ours, b"TYPE", b"list")) == sorted(
            key.encode() for key in spread("list", 5)
        )
        matching = {key for key in MANY[:3000] if key.startswith(b"key:12")}
        assert set(scan(both.ours, b"MATCH", b"key:12*")) == matching
        assert len(scan(both.ours, b"MATCH", b"key:12*", b"TYPE", b"list")) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("x",),
        ("18446744073709551616",),
        ("99999999999999999999999",),
        ("1.5",),
        ("0", "COUNT"),
        ("0", "COUNT", "0"),
        ("0", "COUNT", "-1"),
        ("0", "COUNT", "x"),
        ("0", "MATCH"),
        ("0", "WHAT", "x"),
        ("0", "TYPE", "nothing"),
        ("0", "TYPE"),
        ("0",),
        (),
    ],
)
def test_scan_takes_what_the_server_takes(pair: Pair, words: tuple[str, ...]) -> None:
    """With no keys at all a bare server is at its end at once; each instance of ours is too."""
    with pair.both() as both:
        bare, ours = both.bare.ask("SCAN", *words), both.ours.ask("SCAN", *words)
        if bare.is_error:
            assert ours == bare
        else:
            assert ours.elements[1] == bare.elements[1]
            assert ours.elements[0].text.isdigit()


def test_keys_and_sizes_of_each_database(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for db in (0, 1, 15):
            both.same("SELECT", db)
            for key in spread(f"db{db}", db + 1):
                both.same("SET", key, db)
        for db in range(16):
            both.same("SELECT", db)
            both.same("DBSIZE")
            both.same("KEYS", "*")
            both.same("KEYS", "*:1*")
            both.same("KEYS", "[")
            both.same("MGET", *spread("db1"))
        for bad in ("16", "-1", "x", "", "99999999999", "1.0", " 1", "01", "2147483648"):
            both.same("SELECT", bad)
        both.same("SELECT")
        both.same("SELECT", 1, 2)
        both.same("DBSIZE")
        both.same("SELECT", 15)
        both.same("FLUSHDB")
        both.same("DBSIZE")
        both.same("SELECT", 0)
        assert both.same("DBSIZE").number == INSTANCES
        both.same("FLUSHDB", "SYNC")
        both.same("SELECT", 1)
        assert both.same("DBSIZE").number == INSTANCES * 2
        both.same("SELECT", 0)
        both.same("FLUSHALL", "ASYNC")
        both.same("SELECT", 1)
        assert both.same("DBSIZE").number == 0


def test_flush_comes_after_what_was_sent_before_it(pair: Pair) -> None:
    with pair.both() as both:
        sets = [[b"SET", key, b"v"] for key in MANY[:400]]
        both.same_all([*sets, [b"FLUSHALL"], [b"DBSIZE"], *sets[:7], [b"DBSIZE"]])
        both.same_all([*sets, [b"SELECT", b"1"], *sets[:9], [b"DBSIZE"], [b"SELECT", b"0"]])
        assert both.same("DBSIZE").number == 400


def test_randomkey_takes_every_key_as_often(pair: Pair) -> None:
    keys = [key for key in MANY if owner(key) == 0][:9] + [key for key in MANY if owner(key) == 3][
        :1
    ]
    with pair.both() as both:
        both.same("RANDOMKEY")
        both.same("MSET", *(word for key in keys for word in (key, "v")))
        draws = 3000
        replies = both.ours.ask_all([[b"RANDOMKEY"]] * draws)
        seen = Counter(reply.text for reply in replies)
        assert set(seen) == set(keys)
        # Instance 3 has one key of ten: drawn 300 times, give or take seven standard deviations.
        assert 185 < seen[keys[-1]] < 415
        both.same("SELECT", 5)
        both.same("RANDOMKEY")


def test_a_scan_of_a_few_keys_ends_at_once(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for size in (0, 1, 5, 10):
            both.same("FLUSHALL")
            for number in range(size):
                both.same("SET", f"few:{number}", "v")
            both.same("SADD", "few:set", "m") if size == 5 else None
            for options in ((), ("MATCH", "few:*"), ("TYPE", "set"), ("COUNT", "100")):
                if size == 10 and not options:
                    continue  # one server may need a second call
                bare, ours = both.bare.ask("SCAN", 0, *options), both.ours.ask("SCAN", 0, *options)
                assert ours.elements[0].text == b"0"
                found = [
                    sorted(key.text for key in one.elements[1].elements) for one in (bare, ours)
                ]
                assert bare.elements[0].text != b"0" or found[0] == found[1]
        both.same("SCAN", 0, "COUNT", "x")
        both.same("SCAN", 0, "NOPE")
        both.same("SCAN", 0, "COUNT", 0)

"""Keyspace events: subscribers hear what one server would tell them, in its order."""

import pytest

from differential.listening import Listener
from differential.pair import Both, Pair
from differential.test_blocking import blocked
from differential.test_keyspace import spread
from differential.wire import pack, split
from waiting import until

NAMES = spread("e", 4)
END = "__keyspace@0__:end"


def test_events_of_commands_that_wait_for_each_other_come_in_order(
    main: Both, listener: Listener
) -> None:
    for number in range(30):
        for key in NAMES:
            main.same("SET", key, number)
        listener.same(main)
    main.same("SET", NAMES[0], 1, "PX", 1)
    for key in NAMES:
        main.same("INCR", key, how="shape")
        main.same("LPUSH", f"list:{key}", 1, 2)
        main.same("RPOP", f"list:{key}")
        main.same("LPOP", f"list:{key}")
    listener.since(main)


def test_events_come_in_order_from_commands_of_several_clients(
    pair: Pair, main: Both, listener: Listener
) -> None:
    others = [pair.both() for _ in range(4)]
    for number in range(20):
        for at, key in enumerate(NAMES):
            others[at % 4].same("SET", key, number)
        listener.same(main)
    for other in others:
        other.__exit__()


def test_no_event_tells_of_hidden_databases(pair: Pair, main: Both, protocol: int) -> None:
    listener = Listener(pair, protocol, "*")
    pairs = [word for key in NAMES for word in (key, "1")]
    for words in (
        ["MSET", *pairs], ["DEL", *NAMES], ["MSET", *pairs], ["RENAME", *NAMES[:2]],
        ["EVAL", "return redis.call('MSET', unpack(ARGV))", len(NAMES), *NAMES, *pairs],
        ["UNLINK", *NAMES], ["SADD", NAMES[0], "x"], ["SUNIONSTORE", *NAMES[:3]],
    ):  # fmt: skip
        main.same(*words)
    _, ours = listener.since(main)
    assert all(b"@0__:" in event and b"threadis" not in event for event in ours), ours
    listener.close()


A, B, C, D, *_ = NAMES  # of four instances
COMMANDS = [
    "MSET A 1 B 2 C 3 A 4 D 5", "DEL A B none C", "MSET A 1 B 2", "UNLINK B A D", "MSETNX A 1 B 2",
    "MSETNX A 1 C 2", "RENAME A C", "RENAME none C", "RENAMENX C D", "RENAMENX B D", "COPY D A",
    "COPY D A REPLACE", "COPY D B", "COPY D C DB 3", "MOVE D 4", "MOVE none 4", "FLUSHALL",
    "SADD A x y z", "SADD B y", "SINTERSTORE C A B", "SUNIONSTORE C A B D", "SDIFFSTORE D B A",
    "SDIFFSTORE C B A", "SMOVE A B x", "SMOVE A B nothing", "SMOVE B C y", "SMOVE B C x",
    "ZADD D 1 x 2 y", "ZUNIONSTORE B 2 D A", "ZINTERSTORE C 2 D B", "ZRANGESTORE A D 5 6",
    "ZDIFFSTORE A 2 D B", "FLUSHALL", "RPUSH A 3 1 2", "SORT A STORE B", "LMOVE A C LEFT RIGHT",
    "RPOPLPUSH A C", "LMOVE A D RIGHT LEFT", "LMOVE A B LEFT LEFT", "BLMOVE D B LEFT LEFT 0",
    "LMPOP 2 A B LEFT COUNT 2", "BLPOP A B C 0", "BRPOPLPUSH C A 0", "FLUSHALL", "SET A 1 EX 100",
    "SETBIT B 3 1", "BITOP OR C A B", "PFADD A x", "DEL A", "PFADD A x y", "PFADD B z",
    "PFMERGE C A B", "GEOADD D 13.3 38.1 p 15 37.5 q", "FLUSHALL", "GEOADD D 13.3 38.1 p",
    "GEOSEARCHSTORE A D FROMLONLAT 15 37 BYRADIUS 400 km ASC", "RENAME D B", "XADD C 1-1 f v",
    "XADD D 1-1 f v", "XGROUP CREATE C g 0", "XGROUP CREATE D g 0",
    "XREADGROUP GROUP g c STREAMS C D > >", "FLUSHALL",
    "MULTI ; SET A 1 ; SET B 2 ; INCR A ; RPUSH C 1 2 ; DEL B ; EXEC",
    "MULTI ; MSET A 5 B 6 ; RENAME A D ; LMOVE C A LEFT LEFT ; SINTERSTORE C A B ; EXEC",
    "MULTI ; SADD C 1 ; SUNIONSTORE B C D ; DEL A B C ; EXEC",
    "EVAL \"redis.call('SET', KEYS[1], 1); redis.call('RENAME', KEYS[1], KEYS[2]); "
    "return redis.call('LPUSH', KEYS[3], 1, 2)\" 3 A B C",
    "EVAL \"redis.call('SET', KEYS[1], 1); return redis.call('INCR', ARGV[1])\" 1 A B",
    "EVAL \"redis.call('SET', KEYS[1], 1); return redis.call('NOTHING')\" 2 A C", "DEL A B C D",
    "SET A x PX 100000", "RENAME A B", "EXPIRE B 100", "PERSIST B", "COPY B C", "GETDEL C",
    "COPY none A", "RENAMENX none A", "SMOVE none A x", "LMOVE none B LEFT LEFT", "FLUSHALL",
    "SINTER A none", "SUNION none A", "PFCOUNT A none", "ZUNION 2 A none", "BLPOP A none 0.01",
    "BLPOP none 0.01", "BLMOVE none B LEFT LEFT 0.01", "BZPOPMIN A none 0.01", "LCS A none",
    "XREADGROUP GROUP g c STREAMS none A > >", "BITOP OR C none A", "SORT none BY w_*",
    "MULTI ; GET A ; MGET A none ; EXEC", "MSETNX A 1 B 2", "MSETNX A 1 C 2", "MGET none A",
    "EVAL \"return redis.call('MGET', KEYS[1], KEYS[2])\" 2 A none", "LMPOP 2 none C LEFT",
]  # fmt: skip


def words_of(line: str) -> list[bytes]:
    keys = dict(zip(b"ABCD", (A, B, C, D), strict=True))
    named = {bytes([letter]): key.encode() for letter, key in keys.items()}
    return [named.get(word, word) for word in split(line)]


@pytest.mark.sample
@pytest.mark.parametrize("flags", ["KEA", "EKgn$lszt", "Kx$", "KEAmn", "Em", "Kn"])
def test_commands_over_several_instances_are_told_as_one_server_does(
    pair: Pair, main: Both, protocol: int, flags: str
) -> None:
    main.same("CONFIG", "SET", "notify-keyspace-events", flags)
    listener = Listener(pair, protocol)
    try:
        for line in COMMANDS:
            for part in line.split(" ; "):
                how = "unordered" if part.startswith("FLUSH") else None
                main.same(*words_of(part), how=how)
            bare, ours = listener.since(main)
            assert ours == bare, f"{line}: {ours}, not {bare}"
    finally:
        listener.close()


def test_who_is_served_hears_of_it_as_from_one_server(
    pair: Pair, main: Both, listener: Listener
) -> None:
    for wait, push in (
        ("BLPOP A B 0", "RPUSH B x"), ("BLMOVE A B LEFT RIGHT 0", "RPUSH A x"),
        ("BLMOVE A B LEFT RIGHT 0", "MULTI ; RPUSH A x ; SET C 1 ; EXEC"),
        ("BZPOPMIN A D 0", "ZADD D 1 x"),
    ):  # fmt: skip
        with pair.both() as waiting:
            for side in (waiting.bare, waiting.ours):
                side.send(pack(*words_of(wait)))
                until(lambda: blocked(side, main) == 1, wait)  # noqa: B023
            for part in push.split(" ; "):
                main.same(*words_of(part))
            assert waiting.ours.read() == waiting.bare.read()
        main.same("DEL", A, B, C, D)
        listener.same(main)


def test_nobody_sees_how_it_is_done(pair: Pair, main: Both, listener: Listener) -> None:
    main.same("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 1000)
    main.same("SLOWLOG", "RESET")
    monitor = pair.ours()
    monitor.ask("MONITOR")
    for line in ("MSET A 1 B 2", "RENAME A C", "SADD D x", "SUNIONSTORE B D", "DEL A B C D"):
        main.same(*words_of(line))
    listener.same(main)
    log = main.ours.ask("SLOWLOG", "GET", 1000).raw
    main.same("CONFIG", "SET", "slowlog-log-slower-than", 10_000, "slowlog-max-len", 128)
    main.ours.ask("ECHO", "end")
    lines = [monitor.read().raw]
    while b'"end"' not in lines[-1]:
        lines.append(monitor.read().raw)
    monitor.close()
    for seen in (log, b"".join(lines)):
        assert b"SUNIONSTORE" in seen
        assert b"threadis" not in seen

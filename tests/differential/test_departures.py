"""Clients that go away take their waiting commands with them, and what they have sent behind."""

import contextlib
import socket
import struct
from typing import Final

import pytest

from differential.pair import Pair
from differential.test_blocking import blocked, named
from differential.wire import Connection, pack
from waiting import until

WAITS: Final = (
    "BLPOP A 0",
    "BLPOP A E 0",
    "BRPOP A B C D 0",
    "BLMOVE A E LEFT RIGHT 0",
    "BLMOVE A B LEFT RIGHT 0",
    "BRPOPLPUSH B A 0",
    "BLMPOP 0 2 A B LEFT",
    "BZPOPMIN A 0",
    "BZPOPMAX B A 0",
    "BZMPOP 0 2 A B MAX COUNT 2",
    "XREAD BLOCK 0 STREAMS A $",
    "XREAD BLOCK 0 STREAMS A B 0 $",
    "XREADGROUP GROUP g c BLOCK 0 STREAMS S >",
    "WAIT 1 0",
)


def half_close(connection: Connection) -> None:
    connection.socket.shutdown(socket.SHUT_WR)


def close(connection: Connection) -> None:
    connection.close()


def reset(connection: Connection) -> None:
    linger = struct.pack("ii", 1, 0)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


WAYS: Final = {"half-closed": half_close, "closed": close, "reset": reset}


def line_to_words(line: str) -> list[bytes]:
    return named(line.replace(" S ", " stream "))


def ends(connection: Connection) -> bytes:
    """What comes until the other side has closed, too."""
    with contextlib.suppress(ConnectionResetError):
        return connection.read_to_end()
    return b""


def clients(side: Connection) -> int:
    return len(side.ask("CLIENT", "LIST").text.splitlines())


@pytest.mark.sample
@pytest.mark.parametrize("line", WAITS)
def test_nothing_behind_a_command_that_waits_runs_once_its_client_has_left(
    pair: Pair, line: str
) -> None:
    with pair.both() as main:
        main.same("XGROUP", "CREATE", "stream", "g", "$", "MKSTREAM")
        for name, leave in WAYS.items():
            for is_known in (True, False):  # to wait, when its client leaves
                both = pair.both()
                for side, asker in ((both.bare, main.bare), (both.ours, main.ours)):
                    side.ask("PING")  # it has been accepted
                    there = clients(asker)
                    commands = [line_to_words(line), [b"SET", b"foo", b"1"], [b"INCR", b"foo"]]
                    side.send(b"".join(pack(*words) for words in commands))
                    if is_known:
                        until(lambda: blocked(side, main) == 1, line)  # noqa: B023
                    leave(side)
                    if name == "half-closed":
                        assert ends(side) == b"", name
                        side.close()
                    until(lambda: clients(asker) == there - 1, "it is gone")  # noqa: B023
                main.same("GET", "foo")
                main.same("EXISTS", "foo")
                assert not any(blocked(side, main) for side in (main.bare, main.ours))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_runs_of_a_client_that_has_left_during_a_pause(pair: Pair, way: str) -> None:
    with pair.both() as main:
        for is_known in (True, False):
            main.same("CLIENT", "PAUSE", 60_000, "WRITE")
            both = pair.both()
            for side in (both.bare, both.ours):
                side.send(pack("PING") + pack("SET", "foo", 1) + pack("PING"))
                if is_known:
                    until(lambda: blocked(side, main) == 1, "held back")  # noqa: B023
                WAYS[way](side)
                if way == "half-closed":
                    assert ends(side) == b"+PONG\r\n"
                until(lambda: blocked(side, main) == 0, "gone")  # noqa: B023
            main.same("CLIENT", "UNPAUSE")
            main.same("EXISTS", "foo")
            both.__exit__()


def test_a_pause_of_everything_holds_no_client_back_that_has_left(pair: Pair) -> None:
    with pair.both() as main, pair.both() as both:
        main.same("CLIENT", "PAUSE", 500, "ALL")
        for side in (both.bare, both.ours):
            side.send(pack("SET", "foo", 1))
            half_close(side)
            assert ends(side) == b""
        main.same("EXISTS", "foo")


PIPELINES: Final = (
    "PING ; SET A 1 ; GET A",
    "SET A 1 ; RENAME A B ; GET B ; EXISTS A ; MSET A 1 B 2 C 3 ; MGET A B C ; DEL A B C",
    "RPUSH A x ; BLPOP A 0 ; SET B 1 ; GET B",
    "RPUSH B x y ; BLPOP A B 0 ; BLMOVE B A LEFT LEFT 0 ; BLPOP A 0.001 ; GET A",
    "SADD A 1 ; SINTERSTORE C A A ; EVAL \"return redis.call('incr', KEYS[1])\" 1 D ; INCR D",
    "MULTI ; SET A 1 ; SET B 2 ; EXEC ; MULTI ; SET C 3",
    "GET A ; BLPOP A 0 ; SET foo 1",
    "SUBSCRIBE x ; PING",
)


@pytest.mark.parametrize("line", PIPELINES)
def test_what_is_read_before_a_client_half_closes_is_answered(pair: Pair, line: str) -> None:
    with pair.both() as main, pair.both() as both:
        found = []
        for side in (both.bare, both.ours):
            side.send(b"".join(pack(*named(part)) for part in line.split(" ; ")))
            half_close(side)
            found.append(ends(side))
        assert found[1] == found[0]
        main.same("MGET", "foo", *named("A B C D"))


@pytest.mark.parametrize("way", WAYS)
def test_no_element_is_popped_for_a_client_that_has_left(pair: Pair, way: str) -> None:
    """Neither by a push right behind its leaving, nor by a script's."""
    pushes = ("RPUSH A x", "EVAL \"return redis.call('rpush', KEYS[1], 'x')\" 1 A", "MULTI")
    with pair.both() as main:
        for line in ("BLPOP A 0", "BRPOP B A C 0", "BLMOVE A B LEFT RIGHT 0"):
            for push in pushes * 4:
                both = pair.both()
                for side in (both.bare, both.ours):
                    side.send(pack(*named(line)))
                    until(lambda: blocked(side, main) == 1, line)  # noqa: B023
                WAYS[way](both.bare)
                WAYS[way](both.ours)
                if push == "MULTI":
                    main.same_all([[b"MULTI"], named("RPUSH A x"), named("SET D 1"), [b"EXEC"]])
                else:
                    main.same(*named(push))
                main.same(*named("LRANGE A 0 -1"))
                main.same(*named("DEL A B D"))
                both.__exit__()

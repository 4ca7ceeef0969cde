"""What belongs to a connection: protocol, name, password, inline commands, the end."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Threadis
from differential.pair import Both, Pair
from differential.wire import Connection, Reply, pack

pytestmark = pytest.mark.sample

PASSWORD = "a secret word"
VARYING = {"id", "addr", "laddr", "fd", "age", "idle", "qbuf", "qbuf-free", "argv-mem", "tot-mem"}
VARYING |= {"multi-mem", "rbs", "rbp", "omem", "flags", "tot-net-in", "tot-net-out", "obl", "oll"}


def client_fields(reply: Reply) -> dict[str, str]:
    """A line of CLIENT LIST."""
    line = reply.text.decode().removeprefix("txt:").strip()
    return dict(field.split("=", 1) for field in line.split(" "))


def same_but_id(both: Both, *words: str | int) -> Reply:
    """HELLO's reply, without the client's id, which is each server's own."""
    bare, ours = both.bare.ask(*words), both.ours.ask(*words)
    without = [re.sub(rb"(id\r\n):\d+", rb"\1:0", reply.raw) for reply in (bare, ours)]
    assert without[1] == without[0]
    return ours


HELLOS: list[tuple[str | int, ...]] = [
    ("HELLO",),
    ("HELLO", 2),
    ("HELLO", 3),
    ("HELLO", 4),
    ("HELLO", 1),
    ("HELLO", "x"),
    ("HELLO", ""),
    ("HELLO", "99999999999999999999"),
    ("HELLO", 3, "AUTH", "default", "any"),
    ("HELLO", 3, "AUTH", "nobody", "any"),
    ("HELLO", 3, "AUTH", "default"),
    ("HELLO", 3, "SETNAME", "me"),
    ("HELLO", 2, "SETNAME", "bad name"),
    ("HELLO", 2, "SETNAME"),
    ("HELLO", 3, "AUTH", "default", "any", "SETNAME", "both"),
    ("hello", "3", "setname", "", "auth", "default", "x"),
    ("HELLO", 2, "WHAT"),
    ("HELLO", 2, "WH\xffAT\r\n", "x"),
]


@pytest.mark.parametrize("words", HELLOS, ids=lambda words: " ".join(map(str, words)))
def test_hello(pair: Pair, protocol: int, words: tuple[str | int, ...]) -> None:
    with pair.both(protocol) as both:
        same_but_id(both, *words)
        both.same("CLIENT", "GETNAME")
        both.same("GET", "nothing")  # the null tells the protocol
        same_but_id(both, "HELLO")


def test_names_and_flags(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in (
            "CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME", 'CLIENT SETNAME "bad name"',
            r'CLIENT SETNAME "bad\nname"', r'CLIENT SETNAME "\xff"', "CLIENT GETNAME",
            'CLIENT SETNAME ""', "CLIENT GETNAME", "CLIENT SETNAME", "CLIENT SETNAME a b",
            "CLIENT GETNAME x", "CLIENT ID x", "CLIENT NO-EVICT on", "CLIENT NO-EVICT OFF",
            "CLIENT NO-EVICT maybe", "CLIENT NO-TOUCH on", "CLIENT NO-TOUCH off",
            "CLIENT NO-TOUCH maybe", "CLIENT SETINFO lib-name tests", "CLIENT SETINFO LIB-VER 1.0",
            'CLIENT SETINFO lib-name "bad name"', "CLIENT SETINFO lib-what x",
            r'CLIENT SETINFO "\xff\r\n" x', "CLIENT SETINFO lib-name", 'CLIENT SETINFO lib-ver ""',
            "CLIENT", "CLIENT INFO x", "CLIENT LIST TYPE what", "CLIENT LIST TYPE",
            "CLIENT LIST ID", "CLIENT LIST ID 999999",
            "CLIENT LIST TYPE pubsub", "CLIENT LIST TYPE replica", "CLIENT LIST TYPE normal x",
        ):  # fmt: skip
            both.same_line(f"= {line}")


def test_client_info_has_the_servers_fields(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("SELECT", 3)
        both.same("CLIENT", "SETNAME", "me")
        bare, ours = (client_fields(side.ask("CLIENT", "INFO")) for side in (both.bare, both.ours))
        assert list(ours) == list(bare)
        assert {
            name: ours[name] for name in ours if name not in VARYING | {"events", "tot-cmds"}
        } == {name: bare[name] for name in bare if name not in VARYING | {"events", "tot-cmds"}}
        number = both.ours.ask("CLIENT", "ID").number
        assert ours["id"] == str(number)
        assert ours["addr"] == "{}:{}".format(*both.ours.socket.getsockname())
        assert ours["laddr"] == "{}:{}".format(*both.ours.socket.getpeername())
        other = pair.ours()
        listed = other.ask("CLIENT", "LIST").text.decode()
        assert [line for line in listed.splitlines() if f"id={number} " in line]
        only = client_fields(other.ask("CLIENT", "LIST", "ID", number))
        assert (only["name"], only["db"], only["cmd"]) == ("me", "3", "client|id")
        assert other.ask("CLIENT", "LIST", "TYPE", "normal").text.count(b"\n") >= 2
        assert other.ask("CLIENT", "ID").number > number
        other.close()


def test_reset_forgets_the_session(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("SELECT", 4)
        both.same("SET", "in four", 1)
        both.same("CLIENT", "SETNAME", "me")
        both.same("RESET")
        both.same("CLIENT", "GETNAME")
        both.same("GET", "in four")
        both.same("RESET", "x")
        same_but_id(both, "HELLO")


def test_quit_in_the_middle_of_a_pipeline(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        data = b"".join(pack("SET", f"key:{n}", n) + pack("GET", f"key:{n}") for n in range(50))
        for side in (both.bare, both.ours):
            side.send(data + pack("QUIT") + pack("SET", "after", "quit"))
        assert both.ours.read_to_end() == both.bare.read_to_end()
    with pair.both() as both:
        both.same("EXISTS", "after", "key:49")


@pytest.mark.parametrize(
    ("data", "replies"),
    [
        (b"PING\r\n", 1),
        (b"PING\n", 1),
        (b"\r\n\r\nPING\r\n", 1),
        (b"   PING   hello  \r\n", 1),
        (b"set k 'a b'\r\nget k\r\n", 2),
        (b'set k "a\\x00\\r\\n\\t\\"b"\r\nget k\r\n', 2),
        (b"set k 'it\\'s'\r\nget k\r\n", 2),
        (b"set k ''\r\nstrlen k\r\n", 2),
        (b"\techo\thello\r\n", 1),
        (b"mset a 1 b 2 c 3 d 4\r\nmget a b c d nothing\r\n", 2),
        (b"nope with 'some words' \"more\"\r\n", 1),
        (b"get\r\n", 1),
        (b"*0\r\nPING\r\n", 1),
        (b"*-1\r\nPING\r\n", 1),
        (b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n", 3),
        (b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\x00\xff\r\n", 1),
    ],
)
def test_inline_commands_and_frames(pair: Pair, data: bytes, replies: int) -> None:
    with pair.both() as both:
        both.same_bytes(data, replies)
        both.same("PING")
    with pair.both() as both:
        for at in range(len(data)):  # one byte at a time
            both.ours.send(data[at : at + 1])
        both.bare.send(data)
        for _ in range(replies):
            assert both.ours.read() == both.bare.read()


@pytest.mark.parametrize(
    "data",
    [
        b'set k "open\r\n',
        b"*1\r\n+PING\r\n",
        b"*1\r\n\xffPING\r\n",
        b"*x\r\n",
        b"*2147483648\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*" + b"1" * 70_000,
        b"*1\r\n$" + b"1" * 70_000,
        b"g" * 70_000,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_bad_frames_end_the_connection_in_the_servers_words(pair: Pair, data: bytes) -> None:
    with pair.both() as both:
        for side in (both.bare, both.ours):
            side.send(pack("SET", "before", 1) + data)
        assert both.ours.read() == both.bare.read()
        assert both.ours.read() == both.bare.read()
        assert both.ours.read_to_end() == both.bare.read_to_end() == b""


@pytest.mark.parametrize("number", ["x", "0", "-1"])
def test_client_list_of_no_client(pair: Pair, number: str) -> None:
    with pair.both() as both:
        both.same("CLIENT", "LIST", "ID", number, how="exact")


def test_more_than_a_million_arguments(pair: Pair) -> None:
    members = [b"%d" % number for number in range(1_048_577)]
    with pair.both() as both:
        assert both.same("SADD", "big", *members).number == len(members)
        both.same("MSET", *members[:-1])
        assert both.same("DEL", *members).number == len(members) // 2
        assert both.same("DBSIZE").number == 1
    ours = pair.ours()
    ours.send(b"*2147483648\r\n")
    assert ours.read().raw == b"-ERR Protocol error: invalid multibulk length\r\n"
    assert ours.read_to_end() == b""
    ours.close()


@pytest.fixture
def locked(pair: Pair, tmp_path: Path) -> Iterator[Threadis]:
    """thREaDIS with a password, over the same binary."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    running = Threadis(
        tmp_path / "data",
        tmp_path / "serve.log",
        [
            "--server", pair.server.path, "--instances", "2", "--workers", "1", "--save", "",
            "--requirepass-file", str(tmp_path / "password"),
        ],
    )  # fmt: skip
    try:
        yield running.wait_until_serving()
    finally:
        running.close()


BEFORE_AUTH: list[tuple[str | int, ...]] = [
    ("PING",), ("GET", "k"), ("MGET", "a", "b"), ("INFO",), ("FLUSHALL",),
    ("CONFIG", "GET", "*"), ("CLIENT", "ID"), ("SELECT", 1), ("ECHO", "x"),
    ("COMMAND", "COUNT"), ("MULTI",), ("EVAL", "return 1", 0), ("SUBSCRIBE", "x"), ("RESET",),
    ("HELLO", 3, "AUTH", "default", "wrong"), ("HELLO", 9),
    ("AUTH", "wrong"), ("AUTH", "default", "wrong"), ("AUTH", "nobody", PASSWORD),
    ("HELLO", 2, "AUTH", "default", PASSWORD[:-1]),
]  # fmt: skip


def test_a_password(pair: Pair, locked: Threadis, protocol: int) -> None:
    setting = Connection(pair.bare)
    assert setting.ask("CONFIG", "SET", "requirepass", PASSWORD).raw == b"+OK\r\n"
    try:
        bare, ours = Connection(pair.bare), Connection(("127.0.0.1", locked.port))
        with Both(bare, ours, 2, pair.tips) as both:
            for words in BEFORE_AUTH:
                if words[0] in ("MULTI", "EVAL", "SUBSCRIBE"):
                    both.same(*words, how="exact")
                else:
                    both.same(*words)
            # The servers differ in what they check first, and in the words of this hint.
            assert ours.ask("NOPE", "a").is_error
            assert ours.ask("GET").is_error
            assert ours.ask("HELLO", 3).text.startswith(b"NOAUTH HELLO must be called with")
            same_but_id(both, "HELLO", protocol, "AUTH", "default", PASSWORD, "SETNAME", "me")
            both.same("CLIENT", "GETNAME")
            both.same("SET", "k", "v")
            both.same("AUTH", "wrong")
            both.same("GET", "k")
            both.same("RESET")
            both.same("GET", "k")
            both.same("AUTH", PASSWORD)
            both.same("GET", "k")
            both.same("RESET")
            both.same("AUTH", "default", PASSWORD)
            both.same("MGET", "k", "nothing", "k")
            both.same("QUIT")
    finally:
        setting.ask("CONFIG", "SET", "requirepass", "")
        setting.close()


def test_auth_without_a_password_set(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        both.same("AUTH", "x")
        both.same("AUTH", "default", "anything")
        both.same("AUTH", "nobody", "anything")
        both.same("AUTH", "a", "b", "c")
        both.same("AUTH")

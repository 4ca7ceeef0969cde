"""Bytes on the wire: whatever a client sends, in whatever pieces, to TCP and to the Unix socket.

Rows P1 to P16 of the fault list. Every malformed row stands between good commands: what came
before it is answered first, then the error, then the connection ends, and nothing after it runs.
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Threadis
from raw import Address, Raw, bare_server, bulk, command, keys_of
from threadis.supervisor import server

INSTANCES = 4
INLINE_LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threadis]:
    folder = tmp_path_factory.mktemp("protocol")
    started = Threadis(
        folder / "data",
        folder / "serve.log",
        ["--instances", str(INSTANCES), "--workers", "2", "--unixsocket", str(folder / "c.sock")],
    )
    try:
        yield started.wait_until_serving()
    finally:
        started.close()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, running: Threadis) -> Address:
    if request.param == "tcp":
        return ("127.0.0.1", running.port)
    return str(running.folder.parent / "c.sock")


@pytest.fixture
def unix(running: Threadis) -> str:
    return str(running.folder.parent / "c.sock")


# A pipeline with everything in it, and its exact answer.
KEYS = [next(keys_of(index, INSTANCES, "mixed")) for index in range(INSTANCES)]
PIPELINE = b"".join(
    [
        command("SET", KEYS[0], b"a\r\nb"),
        command("get", KEYS[0]),
        b"PING\r\n",
        command("MSET", KEYS[1], b"", KEYS[2], b"$3\r\n", KEYS[3], b"*0\r\n"),
        b"*0\r\n*-1\r\n\r\n\n*-5\r\n",
        b"set  \"\\x6dixed:inline\"\t'it\\'s'\n",
        command("MGET", KEYS[3], KEYS[1], "mixed:none", KEYS[2], KEYS[3]),
        command("ECHO", b"\x00\xff\r\n"),
        command("DEL", *KEYS),
        command("GETT", "x"),
        b"get mixed:inline\r\n",
    ]
)
ANSWER = b"".join(
    [
        b"+OK\r\n$4\r\na\r\nb\r\n+PONG\r\n+OK\r\n+OK\r\n",
        b"*5\r\n$4\r\n*0\r\n\r\n$0\r\n\r\n$-1\r\n$4\r\n$3\r\n\r\n$4\r\n*0\r\n\r\n",
        b"$4\r\n\x00\xff\r\n\r\n:4\r\n",
        b"-ERR unknown command 'GETT', with args beginning with: 'x' \r\n",
        b"$4\r\nit's\r\n",
    ]
)


def test_a_mixed_pipeline_whole(address: Address) -> None:
    with Raw(address) as client:
        client.send(PIPELINE * 50)
        assert client.exactly(len(ANSWER) * 50) == ANSWER * 50


def test_a_mixed_pipeline_one_byte_at_a_time(address: Address) -> None:
    with Raw(address) as client:
        client.feed(PIPELINE[at : at + 1] for at in range(len(PIPELINE)))
        assert client.exactly(len(ANSWER)) == ANSWER


def test_a_mixed_pipeline_split_at_every_byte(address: Address) -> None:
    with Raw(address) as client:
        for at in range(1, len(PIPELINE)):
            client.feed([PIPELINE[:at], PIPELINE[at:]])
            assert client.exactly(len(ANSWER)) == ANSWER, at


def test_a_long_stream_in_pieces_of_all_sizes(address: Address) -> None:
    chance = random.Random(7)
    values = [chance.randbytes(chance.choice([0, 1, 100, 5_000, 70_000])) for _ in range(60)]
    stream, answer = b"", b""
    for number, value in enumerate(values):
        stream += command("SET", f"piece:{number}", value) + command("GET", f"piece:{number}")
        answer += b"+OK\r\n" + bulk(value) + ANSWER
        stream += PIPELINE
    pieces, at = [], 0
    while at < len(stream):
        size = chance.choice([1, 2, 17, 1_000, 65_535, 65_536, 65_537, 300_000])
        pieces.append(stream[at : at + size])
        at += size
    with Raw(address) as client:
        client.feed(pieces)
        assert client.exactly(len(answer)) == answer


# P2, P3, P5, P7, P8: what is sent, and the words of the error.
MULTIBULK, BULK, CRLF = "invalid multibulk length", "invalid bulk length", "invalid CRLF in request"
MALFORMED: dict[str, tuple[bytes, str | bytes]] = {
    **{
        f"count {count}": (f"*{count}\r\n".encode(), MULTIBULK)
        for count in ("+1", "01", " 1", "1 ", "", "1e3", "0x1", "-", "--1")
    },
    **{
        f"count {count}": (f"*{count}\r\n".encode(), MULTIBULK)
        for count in ("2147483648", "9223372036854775807", "9223372036854775808")
    },
    **{
        f"length {length}": (f"*1\r\n${length}\r\n".encode(), BULK)
        for length in ("+4", "04", " 1", "", "1e3", "0x4", "-1", "-0", "536870913", "x")
    },
    "length 2^63": (b"*1\r\n$9223372036854775808\r\n", BULK),
    "length 2^64+4": (b"*1\r\n$18446744073709551620\r\nPING\r\n", BULK),
    "CR X after a length": (b"*2\r\n$3\rXGET\r\n$1\r\nk\r\n", CRLF),
    "CR X after a count": (b"*1\rX$4\r\nPING\r\n", CRLF),
    "CR CR after a count": (b"*1\r\r\n$4\r\nPING\r\n", CRLF),
    "body too long": (b"*1\r\n$4\r\nPINGXX", CRLF),
    "body ends in LF": (b"*1\r\n$4\r\nPING\n\n*1\r\n", CRLF),
    "nested": (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    "nested deep": (b"*1\r\n" * 100_000, "expected '$', got '*'"),
    "not a bulk": (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    "not a byte of ASCII": (b"*1\r\n\xff\r\n", b"expected '$', got '\xff'"),
    "a line end": (b"*1\r\n\r\n", "expected '$', got ' '"),
    "endless count": (b"*" + b"1" * (INLINE_LIMIT + 1), "too big mbulk count string"),
    "endless length": (b"*1\r\n$" + b"1" * (INLINE_LIMIT + 1), "too big bulk count string"),
    "endless line": (b"a" * (2 * INLINE_LIMIT), "too big inline request"),
    "open double quote": (b'SET k "v\r\n', "unbalanced quotes in request"),
    "open single quote": (b"SET k 'v\r\n", "unbalanced quotes in request"),
    "text behind a quote": (b'ECHO "a"b\r\n', "unbalanced quotes in request"),
    "quote at the end": (b'ECHO "x\\x4\r\n', "unbalanced quotes in request"),
    "backslash at the end": (b'ECHO "\\\r\n', "unbalanced quotes in request"),
}
# Where we are stricter than Redis 7, in the words of Valkey.
STRICTER = {name for name, (_, text) in MALFORMED.items() if text == CRLF}


def protocol_error(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return b"-ERR Protocol error: " + raw + b"\r\n"


@pytest.mark.parametrize("row", MALFORMED)
def test_a_malformed_row_ends_the_connection_after_what_was_owed(
    address: Address, row: str
) -> None:
    content, text = MALFORMED[row]
    before = b"".join(command("INCRBY", key, 0) for key in KEYS) + b"PING\r\n"
    answer = b":0\r\n" * len(KEYS) + b"+PONG\r\n" + protocol_error(text)
    with Raw(address) as client:
        assert client.ask("DEL", *KEYS, "after")
        client.send(before + content + command("SET", "after", "x"))
        assert client.rest() == answer
    with Raw(address) as client:  # in two pieces, the malformed one last
        client.feed([before, content])
        assert client.rest() == answer
    with Raw(address) as client:
        assert client.ask("GET", "after") == b"$-1\r\n"


@pytest.mark.parametrize("row", [row for row in MALFORMED if len(MALFORMED[row][0]) < 100])
def test_a_malformed_row_byte_by_byte(unix: str, row: str) -> None:
    content, text = MALFORMED[row]
    with Raw(unix) as client:
        client.send(command("PING"))
        for at in range(len(content)):
            try:
                client.feed([content[at : at + 1]])
            except OSError:
                break  # told and closed before the last byte
        assert client.rest() == b"+PONG\r\n" + protocol_error(text)


def test_the_words_are_the_servers_own(tmp_path: Path) -> None:
    differing = {}
    with bare_server(server.find().path, tmp_path) as path:
        for row, (content, text) in MALFORMED.items():
            with Raw(path) as client:
                with suppress(OSError):  # it need not read to the end, and may reset
                    client.send(content)
                    client.half_close()
                with suppress(ConnectionResetError):
                    client.wait_for_end()
                found = client.taken()
            if found != protocol_error(text):
                differing[row] = found
    assert {row for row in differing if row not in STRICTER} == set(), differing


def test_empties_get_no_answer_and_do_no_harm(address: Address) -> None:
    with Raw(address) as client:
        client.send(b"*0\r\n*-1\r\n*-5\r\n\r\n\n  \r\n*-9223372036854775808\r\nPING\r\n")
        client.half_close()
        assert client.rest() == b"+PONG\r\n"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b'ECHO "x\\x4"\n', b"$3\r\nxx4\r\n"),
        (b'ECHO "\\x41\\X41\\n\\r\\t\\b\\a\\\\\\q"\r\n', bulk(b"AX41\n\r\t\b\a\\q")),
        (b"ECHO \\x41\r\n", b"$4\r\n\\x41\r\n"),
        (b"ECHO 'a\\'b\\x41'\r\n", b"$7\r\na'b\\x41\r\n"),
        (b'ECHO a"b c"\r\n', b"$4\r\nab c\r\n"),
        (b'ECHO ""\r\n', b"$0\r\n\r\n"),
        (b"ECHO\ta\r\n", b"$1\r\na\r\n"),
        (b"PING\rPING\n", b"$4\r\nPING\r\n"),  # a lone CR is a space
        (b"ECHO " + b"v" * (INLINE_LIMIT - 6) + b"\n", bulk(b"v" * (INLINE_LIMIT - 6))),
    ],
)
def test_inline_lines_are_split_as_redis_does(address: Address, line: bytes, answer: bytes) -> None:
    with Raw(address) as client:
        client.send(line + b"PING\r\n")
        assert client.exactly(len(answer)) == answer
        assert client.line() == b"+PONG\r\n"


BINARY = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"\r\n", b"*1\r\n", b"$3\r\n", b"\0", b"\xff", b"{", b"}", b"", b"+OK\r\n"])
).map(b"".join)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs=st.dictionaries(BINARY, BINARY, min_size=1, max_size=12))
def test_keys_and_values_are_any_bytes(running: Threadis, pairs: dict[bytes, bytes]) -> None:
    flat = [part for pair in pairs.items() for part in pair]
    with Raw(("127.0.0.1", running.port)) as client:
        assert client.ask("MSET", *flat) == b"+OK\r\n"
        values = b"".join(map(bulk, pairs.values()))
        assert client.ask("MGET", *pairs) == b"*%d\r\n" % len(pairs) + values
        for key, value in pairs.items():
            assert client.ask("GET", key) == bulk(value)
        assert client.ask("DEL", *pairs) == b":%d\r\n" % len(pairs)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(BINARY, min_size=1, max_size=4), nonce=st.binary(min_size=8, max_size=8))
def test_no_error_text_can_carry_a_reply(
    running: Threadis, words: list[bytes], nonce: bytes
) -> None:
    echoing = [
        (b"X" + words[0], *words[1:]),
        (b"CLIENT", b"X" + words[0], *words[1:]),
        (b"CONFIG", b"X" + words[0]),
        (b"CONFIG", b"SET", b"x" + words[0], b"1"),
        (b"HELLO", b"3", b"x" + words[0]),
        (b"CLIENT", b"SETINFO", b"x" + words[0], b"1"),
        (b"OBJECT", b"X" + words[0], b"k"),
        (b"SELECT", b"x" + words[0]),
        (b"SCAN", b"x" + words[0]),
        (b"DEBUG", b"X" + words[0]),
        (b"COMMAND", b"X" + words[0]),
    ]
    with Raw(("127.0.0.1", running.port)) as client:
        client.send(b"".join(command(*args) for args in echoing) + command("ECHO", nonce))
        for args in echoing:
            line = client.line()
            assert line.startswith(b"-"), args
            assert b"\r" not in line[:-2], args
            assert b"\n" not in line[:-2], args
        assert client.reply() == bulk(nonce)

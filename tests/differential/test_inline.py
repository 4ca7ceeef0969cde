"""Commands typed as lines: what is one word, and how long a line may be."""

import contextlib

import pytest

from differential.pair import Pair
from raw import Address, Raw

pytestmark = pytest.mark.sample

WORDS = [
    b'ECHO "a"b', b"ECHO 'a'b", b"ECHO \"a\"'b' ", b"ECHO 'a'\"b\"c", b'ECHO a"b"c', b'ECHO ""a',
    b'ECHO "a""b"', b'ECHO "a" b', b'ECHO "a', b"ECHO 'a", b'ECHO a"', b'ECHO "\\x41\\x4"',
    b'ECHO "\\', b"ECHO 'a\\'b'", b"ECHO 'a\\nb'", b"ECHO a\\nb", b'ECHO "a\\nb\\q\\a\\b"',
    b'ECHO "\\xff"', b'ECHO "\\x4g"', b'ECHO "a"\\"b', b'ECHO \\"b', b"ECHO a\tb", b"ECHO a\rb",
    b"ECHO a\x0bb", b"ECHO a\x0cb", b'ECHO "a\r"', b" \t ECHO x", b'ECHO ""', b"ECHO ''",
    b'"ECHO" x', b'EC"HO" x', b"ECHO x\r", b"\r", b"ECHO \x7f\x80\xfe", b"ECHO x\x1cy",
    b"ECHO a\0b", b"\0", b"ECHO a\0", b"\0\r\nPING", b"PING\r\nECHO \0", b'ECHO "\0"',
    b"SET k 'v'w", b'ECHO "a"\x0bb', b"ECHO\x0b\x0c a \x0b", b"ECHO \x0ba", b"ECHO 'a'\x0c",
]  # fmt: skip


def answer(address: Address, content: bytes) -> bytes:
    """Everything that is answered until the connection ends."""
    with Raw(address) as client:
        with contextlib.suppress(OSError):  # it need not be read to the end
            client.send(content)
            client.half_close()
        with contextlib.suppress(ConnectionResetError):
            client.wait_for_end()
        return client.taken()


@pytest.mark.parametrize("line", WORDS)
def test_words_of_a_line(pair: Pair, line: bytes) -> None:
    content = line + b"\r\nPING\r\nGET k\r\n"
    found = answer(("127.0.0.1", pair.threadis.port), content)
    assert found == answer(pair.bare, content)


@pytest.mark.parametrize("begin", [b"*", b"*1\r\n$"])
@pytest.mark.parametrize("digits", [30, 60_000, 200_000])
def test_long_numbers(pair: Pair, begin: bytes, digits: int) -> None:
    """A number whose end is there is wrong, one whose end is not is too long."""
    content = begin + b"1" * digits + b"\r\nPING\r\n"
    found = answer(("127.0.0.1", pair.threadis.port), content)
    assert found == answer(pair.bare, content)


@pytest.mark.parametrize("nul", [b"\0", b"ECHO a\0"])
def test_a_line_with_a_nul_never_ends(pair: Pair, nul: bytes) -> None:
    content = nul + b"\r\nPING\r\n" * 9_000
    found = answer(("127.0.0.1", pair.threadis.port), content)
    assert found == answer(pair.bare, content)
    assert b"too big inline request" in found


@pytest.mark.parametrize("length", [60_000, 65_530, 65_536, 65_537, 200_000, 1_000_000])
def test_long_lines(pair: Pair, length: int) -> None:
    """What lies between depends on how many bytes the server finds when it looks."""
    line = b"ECHO " + b"v" * (length - 7) + b"\r\n"
    assert len(line) == length
    found = answer(("127.0.0.1", pair.threadis.port), line + b"PING\r\n")
    assert found == answer(pair.bare, line + b"PING\r\n")
    assert found[:1] == (b"$" if length <= 65_537 else b"-")

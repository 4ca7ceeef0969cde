"""Encodes replies in the client's protocol: Python values → RESP2 or RESP3."""

from collections.abc import Iterable, Sequence
from typing import Any

import hiredis

OK = b"+OK\r\n"
NULLS = (b"*-1\r\n", b"_\r\n", b"$-1\r\n")  # all encodings of null


def error(message: str) -> bytes:
    """Encode an error; line breaks in the text are replaced."""
    return f"-{message}".replace("\r", " ").replace("\n", " ").encode() + b"\r\n"


def wrong_subcommand(args: list[bytes]) -> bytes:
    """Build the error for arguments that no subcommand of a family accepts."""
    name, sub = (word.decode(errors="replace") for word in args[:2])
    return error(
        f"ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {name.upper()} HELP."
    )


def integer(number: int) -> bytes:
    """Encode an integer."""
    return b":%d\r\n" % number


def simple(text: str) -> bytes:
    """Encode a status."""
    return f"+{text}\r\n".encode()


def array(elements: Sequence[bytes]) -> bytes:
    """Encode an array of encoded replies."""
    return b"*%d\r\n%s" % (len(elements), b"".join(elements))


def bulk(data: bytes) -> bytes:
    """Encode a bulk string."""
    return b"$%d\r\n%s\r\n" % (len(data), data)


def text(data: bytes, resp: int) -> bytes:
    """Encode a text for people: a verbatim string in RESP3, as INFO and CLIENT LIST do."""
    return b"=%d\r\ntxt:%s\r\n" % (len(data) + 4, data) if resp == 3 else bulk(data)


def null(resp: int) -> bytes:
    """Encode null."""
    return b"_\r\n" if resp == 3 else b"$-1\r\n"


def null_array(resp: int) -> bytes:
    """Encode null in place of an array."""
    return b"_\r\n" if resp == 3 else b"*-1\r\n"


def pairs(items: Iterable[tuple[bytes, bytes]], resp: int) -> bytes:
    """Encode a map of bulk strings; a flat array in RESP2."""
    flat = [bulk(part) for item in items for part in item]
    head = b"%%%d\r\n" % (len(flat) // 2) if resp == 3 else b"*%d\r\n" % len(flat)
    return head + b"".join(flat)


def encode(value: Any) -> bytes:
    """Encode what hiredis has decoded; strings become bulk strings."""
    match value:
        case None:
            return b"$-1\r\n"
        case bool():
            return b"#t\r\n" if value else b"#f\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return bulk(value)
        case hiredis.ReplyError():
            return error(str(value))
        case dict():
            parts = [encode(part) for item in value.items() for part in item]
            return b"%%%d\r\n" % len(value) + b"".join(parts)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(encode, value))
    raise TypeError(f"no reply for {type(value).__name__}")

"""A small RESP reader of the tests' own: cuts replies, keeps their bytes, and compares them."""

import re
import shlex
import socket
from dataclasses import dataclass

REPLY_LIMIT = 30.0  # seconds for a reply on a busy machine

Word = bytes | str | int | float


def pack(*words: Word) -> bytes:
    """A command in the wire's form."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def split(line: str) -> list[bytes]:
    r"""The words of a line as a shell splits them; \x00 and the like stand for bytes."""
    return [word.encode().decode("unicode_escape").encode("latin-1") for word in shlex.split(line)]


@dataclass(frozen=True)
class Reply:
    """One reply: its own bytes, and its elements if it is an aggregate."""

    raw: bytes
    elements: tuple["Reply", ...] = ()

    @property
    def kind(self) -> str:
        """The first byte."""
        return chr(self.raw[0])

    @property
    def is_error(self) -> bool:
        """Whether it is an error."""
        return self.kind in "-!"

    @property
    def text(self) -> bytes:
        """What a simple or a bulk string says; nothing else has a text."""
        if self.kind in "$=!":
            return self.raw.split(b"\r\n", 1)[1][:-2]
        return self.raw[1:-2]

    @property
    def number(self) -> int:
        """What an integer says."""
        assert self.kind == ":", self.raw
        return int(self.raw[1:-2])


class Connection:
    """A raw connection: bytes out, replies in."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(REPLY_LIMIT)
        self.socket.connect(address)
        self._rest = bytearray()
        self._at = 0

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are. Pipelines stay below the buffers of both sides."""
        self.socket.sendall(data)

    def ask(self, *words: Word) -> Reply:
        """Send a command and read its reply."""
        self.send(pack(*words))
        return self.read()

    def ask_all(self, commands: list[list[bytes]]) -> list[Reply]:
        """Send a pipeline and read its replies; in pieces, so that neither side's buffer fills."""
        replies: list[Reply] = []
        for at in range(0, len(commands), 50):
            piece = commands[at : at + 50]
            self.send(b"".join(pack(*command) for command in piece))
            replies.extend(self.read() for _ in piece)
        return replies

    def read(self) -> Reply:
        """Read one reply."""
        reply = self._reply()
        del self._rest[: self._at]
        self._at = 0
        return reply

    def read_to_end(self) -> bytes:
        """Read until the other side hangs up."""
        found = bytes(self._rest)
        while data := self.socket.recv(65536):
            found += data
        return found

    def _reply(self) -> Reply:
        begin = self._at
        line = self._line()
        kind = line[:1]
        assert kind in b"+-:_,#($=!*~>%|", f"no reply begins like {line[:40]!r}"
        elements: list[Reply] = []
        if kind in b"$=!" and line != b"$-1":
            self._need(int(line[1:]) + 2)
            self._at += int(line[1:]) + 2
            assert self._rest[self._at - 2 : self._at] == b"\r\n"
        elif kind in b"*~>%|" and line != b"*-1":
            count = int(line[1:]) * (2 if kind in b"%|" else 1)
            elements = [self._reply() for _ in range(count)]
        return Reply(bytes(self._rest[begin : self._at]), tuple(elements))

    def _line(self) -> bytes:
        searched = self._at
        while (end := self._rest.find(b"\r\n", searched)) < 0:
            searched = max(self._at, len(self._rest) - 1)
            self._more()
        line = bytes(self._rest[self._at : end])
        self._at = end + 2
        return line

    def _need(self, length: int) -> None:
        while len(self._rest) < self._at + length:
            self._more()

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        assert data, f"hung up in the middle of a reply: {bytes(self._rest[:200])!r}"
        self._rest += data


def unordered(reply: Reply, pairs: bool = False) -> object:
    """The reply with the order of its elements taken out; maps stay maps."""
    if not reply.elements:
        return reply.raw
    elements = [unordered(element) for element in reply.elements]
    if reply.kind in "%|" or pairs:
        together = zip(elements[::2], elements[1::2], strict=True)
        return (reply.kind, sorted((repr(name), repr(value)) for name, value in together))
    return (reply.kind, sorted(map(repr, elements)))


def shape(reply: Reply) -> object:
    """The reply with its values taken out; errors and nulls say what they say."""
    if reply.is_error or reply.raw in (b"$-1\r\n", b"*-1\r\n", b"_\r\n"):
        return reply.raw
    if reply.elements:
        return (reply.kind, tuple(shape(element) for element in reply.elements))
    return reply.kind


PAIRS = re.compile(rb"^(hgetall|config|command\|docs)$")


def differs(how: str, name: bytes, bare: Reply, ours: Reply) -> bool:
    """Whether two replies to one command are not what ``how`` says of them."""
    if how == "shape":
        return shape(bare) != shape(ours)
    if how == "unordered" and bare.raw != ours.raw:
        pairs = bool(PAIRS.match(name)) and bare.kind == "*"
        return unordered(bare, pairs) != unordered(ours, pairs)
    return bare.raw != ours.raw

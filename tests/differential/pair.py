"""Two servers, one command: the replies must be the same."""

from dataclasses import dataclass, field
from typing import Any

import hiredis

from conftest import Threadis
from differential.wire import Connection, Reply, Word, differs, pack, split
from threadis.catalog import commands
from threadis.supervisor.server import ServerBinary


@dataclass(frozen=True)
class Pair:
    """A bare stock server (by its socket) and thREaDIS over the same binary."""

    bare: str
    threadis: Threadis
    server: ServerBinary = field(repr=False)
    tips: dict[bytes, str] = field(repr=False)  # how replies to a command may differ
    rows: list[commands.Row] = field(repr=False)  # the command table

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """As Hypothesis shows it: without the tables."""
        printer.text(repr(self))

    @classmethod
    def of(cls, bare: str, threadis: Threadis, server: ServerBinary) -> "Pair":
        """A pair, and what the bare server says of its commands."""
        connection = Connection(bare)
        listing = connection.ask("COMMAND")
        connection.close()
        reader = hiredis.Reader()
        reader.feed(listing.raw)
        rows = commands.derive(reader.gets())
        return cls(bare, threadis, server, how_by_command(listing), rows)

    def supported(self) -> list[commands.Row]:
        """The commands that thREaDIS does not refuse."""
        return [row for row in self.rows if row.route != "refuse"]

    def both(self, protocol: int = 2) -> "Both":
        """A fresh connection to each."""
        return Both(Connection(self.bare), self.ours(), protocol, self.tips)

    def ours(self) -> Connection:
        """A fresh connection to thREaDIS."""
        return Connection(("127.0.0.1", self.threadis.port))

    def flush(self) -> None:
        """Empty both."""
        with self.both() as both:
            both.same("FLUSHALL")


class Both:
    """A connection to each server, in one protocol, in step."""

    def __init__(
        self, bare: Connection, ours: Connection, protocol: int, tips: dict[bytes, str]
    ) -> None:
        self.bare, self.ours, self.tips = bare, ours, tips
        if protocol == 3:
            for side in (bare, ours):
                assert side.ask("HELLO", 3).kind == "%"

    def __enter__(self) -> "Both":
        return self

    def __exit__(self, *_: object) -> None:
        self.bare.close()
        self.ours.close()

    @staticmethod
    def packed(*words: Word) -> bytes:
        """A command in the wire's form."""
        return pack(*words)

    def same(self, *words: Word, how: str | None = None) -> Reply:
        """Send a command to both; the reply of ours, which is that of the bare server."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        return self.same_all([parts], how)[0]

    def same_line(self, line: str) -> Reply:
        """Send a line to both; its first word may say how to compare."""
        how, words = marked(line)
        return self.same(*words, how=how)

    def same_all(self, commands: list[list[bytes]], how: str | None = None) -> list[Reply]:
        """Send a pipeline to both."""
        return self.same_marked([(how, command) for command in commands])

    def same_marked(self, marked: list[tuple[str | None, list[bytes]]]) -> list[Reply]:
        """Send a pipeline to both; each command with how to compare its replies."""
        commands = [command for _, command in marked]
        bare, ours = self.bare.ask_all(commands), self.ours.ask_all(commands)
        wrong = [
            f"{command!r}\n  {mode} expected {theirs.raw[:400]!r}\n  got {got.raw[:400]!r}"
            for (how, command), theirs, got in zip(marked, bare, ours, strict=True)
            for mode in [how or self.how(command)]
            if self.differ(command, theirs, got, mode)
        ]
        assert not wrong, f"{len(wrong)} of {len(commands)} differ:\n" + "\n".join(wrong[:20])
        return ours

    def differ(
        self, command: list[bytes], bare: Reply, ours: Reply, how: str | None = None
    ) -> bool:
        """Whether the replies to a command are not the same."""
        return differs(how or self.how(command), self.name(command), bare, ours)

    def same_bytes(self, data: bytes, replies: int) -> list[Reply]:
        """Send bytes to both as they are, and compare so many replies."""
        self.bare.send(data)
        self.ours.send(data)
        bare = [self.bare.read() for _ in range(replies)]
        ours = [self.ours.read() for _ in range(replies)]
        assert ours == bare
        return ours

    def name(self, command: list[bytes]) -> bytes:
        """The command's name in the table: lower case, ``parent|name`` for a subcommand."""
        name = command[0].lower()
        sub = name + b"|" + command[1].lower() if len(command) > 1 else name
        return sub if sub in self.tips else name

    def how(self, command: list[bytes]) -> str:
        """How the server's own tips say that replies to this command may differ."""
        return self.tips.get(self.name(command), "exact")


def marked(line: str) -> tuple[str | None, list[bytes]]:
    """A line of a scenario: how to compare (None: as the tips say), and the command."""
    words = split(line)
    marks = {b"=": "exact", b"unordered": "unordered", b"shape": "shape"}
    return (marks[words[0]], words[1:]) if words[0] in marks else (None, words)


# What the allocator, and the offset of all writes so far, decide: no tip of the server says so.
BY_HISTORY = (b"memory|usage", b"role")


def how_by_command(listing: Reply) -> dict[bytes, str]:
    """What the tips in COMMAND's reply say of the order and the values of replies."""
    found: dict[bytes, str] = {}
    for entry in listing.elements:
        tips = {tip.text for tip in entry.elements[7].elements}
        how, name = "exact", entry.elements[0].text.lower()
        if b"nondeterministic_output" in tips or name in BY_HISTORY:
            how = "shape"
        elif b"nondeterministic_output_order" in tips:
            how = "unordered"
        found[name] = how
        found.update(how_by_command(entry.elements[9]))
    return found

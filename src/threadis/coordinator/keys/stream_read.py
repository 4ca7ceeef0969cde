"""Parses XREAD and XREADGROUP."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from threadis.coordinator.instances.links import Words, value

OPTIONS: Final = {b"BLOCK": 2, b"COUNT": 2, b"GROUP": 3, b"NOACK": 1}  # words of each
NEW: Final = b"$"  # what comes after the last entry of now


@dataclass(frozen=True, slots=True)
class StreamRead:
    """The arguments of an XREAD or XREADGROUP."""

    head: list[bytes]  # all before STREAMS, except BLOCK
    block: bytes | None  # milliseconds
    keys: list[bytes]
    ids: list[bytes]

    @property
    def group(self) -> bytes:
        """The consumer group that XREADGROUP names."""
        words = [word.upper() for word in self.head]
        return self.head[words.index(b"GROUP") + 1] if b"GROUP" in words else b""

    def words(self, keys: Sequence[bytes], ids: Sequence[bytes]) -> Words:
        """Build the command for some of the streams; it does not block."""
        return [*self.head, b"STREAMS", *keys, *ids]

    def only(self, key: bytes) -> Words:
        """Build the command for one of the streams, at its first occurrence."""
        return self.words([key], [self.ids[self.keys.index(key)]])

    def is_woken(self, stream: bytes, groups: bytes) -> bool:
        """Whether a consumer gets something: entries, or the error that the group is gone; by what
        XINFO says of the stream and of its groups.
        """
        infos = value(groups)
        known = infos if isinstance(infos, list) else []  # else there is no such stream
        mine = next((one for one in known if field(one, b"name") == self.group), None)
        seen, last = field(mine, b"last-delivered-id"), field(value(stream), b"last-generated-id")
        return seen is None or seen != last

    def all_of(self, keys: Collection[bytes]) -> Words:
        """Build the command for some of the streams, each as often as it is named."""
        named = [at for at, key in enumerate(self.keys) if key in keys]
        return self.words([self.keys[at] for at in named], [self.ids[at] for at in named])


def parse(args: Sequence[bytes]) -> StreamRead | None:
    """Parse a command; None if its syntax is wrong."""
    head, block, at = [args[0]], None, 1
    while length := _option(args, at):
        if args[at].upper() == b"BLOCK":
            block = args[at + 1]
        else:
            head.extend(args[at : at + length])
        at += length
    rest = args[at + 1 :]
    half = len(rest) // 2
    if at >= len(args) or args[at].upper() != b"STREAMS" or not rest or len(rest) % 2:
        return None
    return StreamRead(head, block, list(rest[:half]), list(rest[half:]))


def block_at(args: Sequence[bytes]) -> int | None:
    """Find BLOCK among the options of a command; None without it."""
    at = 1
    while length := _option(args, at):
        if args[at].upper() == b"BLOCK":
            return at
        at += length
    return None


def _option(args: Sequence[bytes], at: int) -> int:
    """Return the number of arguments of an option; 0 if there is none."""
    length = OPTIONS.get(args[at].upper(), 0) if at < len(args) else 0
    return length if at + length <= len(args) else 0


def count(args: Sequence[bytes]) -> int:
    """Count the streams that a command names."""
    read = parse(args)
    return len(read.keys) if read else 0


def field(info: object, name: bytes) -> object:
    """One field of XINFO's reply, in either protocol."""
    if isinstance(info, dict):
        return info[name]
    return info[info.index(name) + 1] if isinstance(info, list) else None

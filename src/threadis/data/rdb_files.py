"""What files alone tell: whether an instance's directory holds keys, and whether a snapshot is
complete and when it was made.

A server saves a snapshot even if it has no keys; that one must not count. Unknown content counts as
keys.
"""

from pathlib import Path

OURS = frozenset(("id", "id.new", "files", "files.new", "server.log", "server.log.1"))
HEADER = 9  # bytes: REDIS0010, VALKEY080
LONGEST = 64 * 1024 * 1024  # bytes of a snapshot with functions and no keys; more count as keys
FOOTER = 9  # bytes: the end mark, a checksum
PREAMBLE = 4096  # bytes, in which a snapshot says when it was made
END, AUX, FUNCTION = 0xFF, 0xFA, 0xF5  # what a snapshot without keys is made of
INTEGERS = {0: 1, 1: 2, 2: 4}  # bytes of a text that is kept as a number


def holds_keys(folder: Path) -> bool:
    """Whether any file there may hold keys."""
    return any(
        _may_hold_keys(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OURS and path.suffix != ".manifest"
    )


def _may_hold_keys(path: Path) -> bool:
    size = path.stat().st_size
    return size > 0 and (size > LONGEST or not is_empty_snapshot(path.read_bytes()))


def is_empty_snapshot(content: bytes) -> bool:
    """Whether this is a snapshot (RDB) without a key."""
    if not content.startswith((b"REDIS", b"VALKEY")):
        return False
    at = HEADER
    try:
        while content[at] in (AUX, FUNCTION):
            texts = 2 if content[at] == AUX else 1
            at += 1
            for _ in range(texts):
                at = _behind_text(content, at)
        return content[at] == END
    except IndexError:
        return False


def snapshot_fault(path: Path) -> str:
    """Return an obvious fault of a snapshot, or an empty text; the server checks the checksum."""
    with path.open("rb") as file:
        head = file.read(HEADER)
        if not head:
            return "it is empty"
        if not head.startswith((b"REDIS", b"VALKEY")):
            return "it is not a snapshot"
        file.seek(max(0, path.stat().st_size - FOOTER))
        tail = file.read(FOOTER)
    return "" if len(tail) == FOOTER and tail[0] == END else "its end is missing"


def snapshot_time(path: Path) -> int:
    """Return when a snapshot was made, by its own field, in seconds; 0 if unknown."""
    with path.open("rb") as file:
        content = file.read(PREAMBLE)
    at = HEADER
    try:
        while content[at] == AUX:
            name = at + 1
            text = _behind_text(content, name)
            at = _behind_text(content, text)
            if content[name + 1 : text] == b"ctime":
                return int.from_bytes(content[text + 1 : at], "little")
    except IndexError:
        pass
    return 0


def _behind_text(content: bytes, at: int) -> int:
    """Return where the text at this place ends."""
    length, at, is_special = _length(content, at)
    if not is_special:
        return at + length
    if length in INTEGERS:
        return at + INTEGERS[length]
    length, at, _ = _length(content, at)  # compressed
    _, at, _ = _length(content, at)
    return at + length


def _length(content: bytes, at: int) -> tuple[int, int, bool]:
    """Return a length, the position after it, and whether it is a special encoding instead."""
    first = content[at]
    match first >> 6:
        case 0:
            return first & 0x3F, at + 1, False
        case 1:
            return (first & 0x3F) << 8 | content[at + 1], at + 2, False
        case 2:
            size = 8 if first == 0x81 else 4
            return int.from_bytes(content[at + 1 : at + 1 + size], "big"), at + 1 + size, False
        case _:
            return first & 0x3F, at + 1, True

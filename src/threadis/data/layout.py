"""``threadis.json``: the record of a data directory's instances and of where keys live."""

import hashlib
from pathlib import Path

import msgspec

from threadis.control import SlotRange
from threadis.errors import DataError
from threadis.system import file_errors

LAYOUT = "threadis.json"
FORMAT = 1
SLOTS = 16384
PLACEMENT = "crc16-hashtag"  # how a key gets its slot; changing it is a reshard


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of ``threadis.json``."""

    format: int
    placement: str
    instances: int
    ids: list[str]
    slot_map: list[SlotRange]
    rules: list[str] = []  # placement rules, in the order in which they are tried
    pins: list[tuple[int, int]] = []  # databases that live on one instance, and which
    checksum: str = ""  # of all the rest

    def sum(self) -> str:
        """Return the checksum of all other fields."""
        content = msgspec.json.encode(msgspec.structs.replace(self, checksum=""))
        return hashlib.sha256(content).hexdigest()[:32]

    def fault(self) -> str:
        """Return what is wrong with it, or an empty text."""
        if self.checksum not in ("", self.sum()):
            return "its content does not match its checksum"
        place = 0
        for one in sorted(self.slot_map, key=lambda one: one.first):
            if one.first != place or one.last < place or not 0 <= one.instance < self.instances:
                return "its slot map is not whole"
            place = one.last + 1
        return "" if place == SLOTS else "its slot map is not whole"


def even_slot_map(instances: int) -> list[SlotRange]:
    """Return the slots in equal shares, in order."""
    edges = [i * SLOTS // instances for i in range(instances + 1)]
    return [SlotRange(edges[i], edges[i + 1] - 1, i) for i in range(instances)]


def read_layout(folder: Path) -> Layout | None:
    """Read the recorded layout; None if there is none yet."""
    path = folder / LAYOUT
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        otherwise = "choose another --dir"
        raise DataError(f"dir: {file_errors.explain('read', path, error, otherwise)}") from None
    try:
        layout = msgspec.json.decode(content, type=Layout)
    except msgspec.DecodeError as error:
        raise DataError(f"dir: {path} is damaged ({error}); restore it from a backup") from None
    if (layout.format, layout.placement) != (FORMAT, PLACEMENT) or not 0 < layout.instances == len(
        layout.ids
    ):
        raise DataError(f"dir: {path} was written by another version of threadis; use that one")
    if fault := layout.fault():
        raise DataError(f"dir: {path} is damaged ({fault}); restore it from a backup")
    return layout

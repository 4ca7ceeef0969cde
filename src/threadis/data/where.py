"""``threadis where KEY``: the slot and the instance of a key, from the data directory.

What is recorded there never changes while thREaDIS runs, so no process has to be asked.
"""

import os
from pathlib import Path

from threadis import _core
from threadis.config import placement
from threadis.data.layout import Layout, read_layout
from threadis.errors import ConfigError, DataError


def placement_of(layout: Layout) -> _core.Placement:
    """Return the placement of keys."""
    return _core.Placement(
        [(one.first, one.last, one.instance) for one in layout.slot_map],
        layout.instances,
        [rule.parts() for rule in placement.read(layout.rules)],
        layout.pins,
    )


def is_ours(key: bytes) -> bool:
    """Whether a key in the first hidden database is a record of ours."""
    return _core.is_record(key)


def describe(folder: Path, text: str, db: int, databases: int) -> list[str]:
    """Return the answer as lines of text."""
    if db >= databases:
        raise ConfigError(
            f"db: there is no database {db}, only 0 to {databases - 1}; see --databases"
        )
    layout = read_layout(folder)
    if layout is None:
        raise DataError(
            f"dir: {folder} holds no data of threadis; name the directory that is served (--dir)"
        )
    rules, placed = placement.read(layout.rules), placement_of(layout)
    key = os.fsencode(text)
    if db in dict(layout.pins):
        where = [f"database  {db}, as a whole on one instance (--pin-database)"]
    else:
        begin, end, rule = placed.part(key)
        why = "" if rule is None else f" of {_shown(key[begin:end])} ({rules[rule].text})"
        where = [f"slot      {placed.slot(key)}{why}"]
    index = placed.instance(db, key)
    return [
        f"key       {_shown(key)}",
        *where,
        f"instance  {index} (of 0 to {layout.instances - 1})",
    ]


def _shown(key: bytes) -> str:
    """Format a key, or a part of it, on one line."""
    text = os.fsdecode(key)
    return text if text.isprintable() else str(key)[2:-1]

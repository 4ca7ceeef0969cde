"""Owns the answer to ``threadis where KEY``: the slot and the instance, from the data directory.

What is recorded there never changes while thREaDIS runs, so nobody has to be asked.
"""

import os
from pathlib import Path

from threadis import _core, placement
from threadis.data_dir import read_layout
from threadis.errors import DataError


def describe(folder: Path, text: str, db: int) -> list[str]:
    """The answer as lines of text."""
    layout = read_layout(folder)
    if layout is None:
        raise DataError(
            f"dir: {folder} holds no data of threadis; name the directory that is served (--dir)"
        )
    rules = placement.read(layout.rules)
    placed = _core.Placement(
        [(one.first, one.last, one.instance) for one in layout.slot_map],
        layout.instances,
        [rule.parts() for rule in rules],
        layout.pins,
    )
    key = os.fsencode(text)
    if db in dict(layout.pins):
        where = [f"database  {db}, as a whole on one instance (--pin-database)"]
    else:
        begin, end, rule = placed.part(key)
        why = "" if rule is None else f" of {os.fsdecode(key[begin:end])} ({rules[rule].text})"
        where = [f"slot      {placed.slot(key)}{why}"]
    index = placed.instance(db, key)
    return [f"key       {text}", *where, f"instance  {index} of {layout.instances}"]

"""How often Python looks for garbage that refers to itself.

It looks whenever there are some hundred objects more, and now and then at all that there are. What
a command with 100,000 keys makes is no garbage yet: to look at that again and again takes longer
than the command, and holds everybody up.
"""

import contextlib
import gc
import itertools
from collections.abc import Iterator
from typing import Final

from threadis.coordinator.base.offload import LARGE

SELDOM: Final = 50_000  # objects more than at the last look: some milliseconds

_usual: Final = gc.get_threshold()
_numbers: Final = itertools.count()
_running: Final[set[int]] = set()  # large commands


@contextlib.contextmanager
def collect_seldom(size: int) -> Iterator[None]:
    """Look seldom while a command runs that has so many words, or commands, if these are many."""
    if size < LARGE:
        yield
        return
    number = next(_numbers)
    _running.add(number)
    gc.set_threshold(SELDOM, *_usual[1:])
    try:
        yield
    finally:
        _running.remove(number)
        if not _running:
            gc.set_threshold(*_usual)

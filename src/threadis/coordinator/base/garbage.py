"""How often Python's cyclic garbage collector runs.

It runs whenever there are some hundred new objects, and now and then looks at all objects. The
objects of a command with 100,000 keys are not garbage yet: to look at them again and again takes
longer than the command, and delays all clients.
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
    """Collect seldom while a large command runs; ``size``: of arguments or commands."""
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

"""Returns freed memory to the kernel that the C library keeps.

glibc returns what is at the end of a heap, and every thread has a heap of its own. After a burst
most of a process's memory is free, but lies between blocks that are in use.
"""

import asyncio
import ctypes
import os
from pathlib import Path

EVERY = 2.0  # seconds between looks
LONGEST = 64.0  # seconds between looks while nothing can be given back
WORTH = 16 * 1024 * 1024  # bytes that are worth returning
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
MOST_TOP = 4 * 1024 * 1024  # bytes that may stay free at the end of a thread's heap
MOST_BLOCK = 32 * 1024 * 1024  # bytes; larger ones are mapped one by one. glibc's own limit
PAGE = os.sysconf("SC_PAGE_SIZE")


class _Use(ctypes.Structure):
    """The result of mallinfo2(3), in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class Heap:
    """The C library's heaps, if it is glibc."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._ask = getattr(library, "mallinfo2", None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._ask:
            self._ask.restype = _Use
        # malloc_trim does not look at the end of the heaps of threads. What is free there goes
        # back with a later free, if it is above a threshold, which glibc would raise up to 64 MB.
        option = getattr(library, "mallopt", None)
        if option:
            option(M_TRIM_THRESHOLD, MOST_TOP)
            option(M_MMAP_THRESHOLD, MOST_BLOCK)

    async def keep_small(self) -> None:
        """Return memory from time to time, if there is enough of it."""
        if not self._ask or not self._trim:
            return
        least = self.unused()
        pause = EVERY
        while True:
            await asyncio.sleep(pause)
            unused = self.unused()
            least = min(least, unused)
            if unused - least <= WORTH:
                pause = EVERY
                continue
            await asyncio.to_thread(self._trim, 0)  # workers wait only where they need memory
            # Little comes back if pieces in use lie between, or if clients freed more meanwhile.
            given = unused - self.unused()
            pause = EVERY if given > WORTH else min(2 * pause, LONGEST)

    def unused(self) -> int:
        """Return how many bytes this process has, but are not in use."""
        if not self._ask:
            return 0
        use = self._ask()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        return resident - int(use.uordblks) - int(use.hblkhd)

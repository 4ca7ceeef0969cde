"""Gives memory back to the kernel that was freed, and that the C library keeps.

glibc gives back what lies at the end of a heap, and every thread has a heap of its own. After a
burst most of what a process has is free, but lies between pieces that are in use.
"""

import asyncio
import ctypes
import os
from pathlib import Path

EVERY = 2.0  # seconds between looks
WORTH = 16 * 1024 * 1024  # bytes that somebody else should have
PAGE = os.sysconf("SC_PAGE_SIZE")


class _Use(ctypes.Structure):
    """What mallinfo2(3) tells, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class Heap:
    """The C library's, if it is one that can be asked."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._ask = getattr(library, "mallinfo2", None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._ask:
            self._ask.restype = _Use

    async def keep_small(self) -> None:
        """Give back from time to time what is worth it."""
        if not self._ask or not self._trim:
            return
        least = self.unused()
        while True:
            await asyncio.sleep(EVERY)
            unused = self.unused()
            least = min(least, unused)
            if unused - least > WORTH:
                await asyncio.to_thread(self._trim, 0)  # workers wait only where they need memory
                least = self.unused()  # what could not be given back now, cannot be next time

    def unused(self) -> int:
        """Bytes that this process has, but not for anything that was asked of the C library."""
        if not self._ask:
            return 0
        use = self._ask()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        return resident - int(use.uordblks) - int(use.hblkhd)

"""What instances say of themselves, for INFO: never waited for long.

An instance that does not answer in time (a script runs there, it forks, its disk is slow) is shown
as it last was; it is asked on, and waited for again once it has answered. So is one that is
stopped: what it has is not lost.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from threadis import control
from threadis.coordinator import merging
from threadis.coordinator.links import LinkError, Links
from threadis.coordinator.merging import Sections
from threadis.coordinator.tasks import Tasks

WHOLE: Final = (b"default", b"all", b"everything")  # arguments that stand for many sections
PATIENCE: Final = 0.5  # seconds that INFO waits for an instance; busy machines need some


@dataclass(slots=True)
class Known:
    """What one process of an instance has said last, section by section."""

    socket: str
    at: float = 0.0  # monotonic seconds
    sections: Sections = field(default_factory=dict)
    is_late: bool = False  # it has been asked, and has not answered in time


class Surveys:
    """Asks the instances for their INFO."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._known: dict[int, Known] = {}
        self._tasks = Tasks()

    async def ask(self, sections: list[bytes]) -> dict[int, Sections]:
        """INFO of every instance that can be asked; of one that is late, what it said last."""
        asked = {}
        for index in self._links.ready():
            known = self._of(index)
            if not known.is_late:
                job = self._ask(index, known, sections)
                asked[index] = self._tasks.start(job, f"INFO of instance {index}")
        if asked:
            await asyncio.wait(asked.values(), timeout=PATIENCE)
        found = {}
        for index in self._links.ready():
            known, task = self._of(index), asked.get(index)
            is_late = task is None or not task.done()
            answer = None if task is None or is_late else task.result()
            if answer is not None:
                found[index] = answer
            elif known.sections:  # it is late, or cannot be reached just now
                known.is_late = known.is_late or is_late
                found[index] = only(known.sections, sections)
        for index in self._stopped() if found else ():
            if last := self._of(index).sections:
                found[index] = only(last, sections)
        return dict(sorted(found.items()))

    def age(self, index: int) -> int:
        """Milliseconds since a late instance has said what is shown of it; else 0."""
        known = self._known.get(index)
        is_late = known is not None and (known.is_late or index in self._stopped())
        return int((time.monotonic() - known.at) * 1000) if known and is_late else 0

    def _stopped(self) -> list[int]:
        return [
            index
            for index in self._links.everyone()
            if self._links.instance(index).state is control.State.STOPPED
        ]

    def _of(self, index: int) -> Known:
        socket = self._links.instance(index).socket
        known = self._known.get(index)
        if known is None or known.socket != socket:
            known = self._known[index] = Known(socket)
        return known

    async def _ask(self, index: int, known: Known, sections: list[bytes]) -> Sections | None:
        """Ask one; None if it cannot be reached. Raises LinkError when it says BUSY."""
        try:
            answer = await self._links.call(index, b"INFO", *sections)
        except LinkError:
            return None
        finally:
            known.is_late = False
        if not isinstance(answer, bytes):
            raise LinkError(str(answer))
        found = merging.parse(answer.decode(errors="replace"))
        known.sections |= found
        known.at = time.monotonic()
        return found


def only(sections: Sections, names: list[bytes]) -> Sections:
    """What INFO shows when it is asked for these."""
    if not names or any(name in WHOLE for name in names):
        return sections
    return {title: fields for title, fields in sections.items() if title.lower().encode() in names}

"""Collects the instances' INFO, and never waits for it for long.

An instance that is busy with something long (a script, a big value, a slow disk) is shown as it was
last. It is still asked, and waited for again once it has answered. The same holds for one that is
stopped: its data is not lost. All instances are asked now and then, so that there is something to
show.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from threadis import control
from threadis.coordinator.instances import info_merge
from threadis.coordinator.instances.info_merge import Sections
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.tasks import Tasks
from threadis.system.process import activity, cpu_seconds

WHOLE: Final = (b"default", b"all", b"everything")  # arguments that stand for many sections
MOMENT: Final = (
    0.002  # seconds in which an idle instance answers; then it is checked whether it is busy
)
WORK: Final = 0.001  # seconds of CPU without an answer: it is busy; an answer takes a tenth of that
TIDYING: Final = 0.01  # the same while it deletes our records, for which it may need its disk, too
LOOKS: Final = 2  # that must find it busy: we may be late ourselves
PATIENCE: Final = 0.5  # seconds that INFO waits for one that gets no CPU, or has never answered
TURNS: Final = 10  # of the loop, in which an answer that has arrived is delivered
PERIOD: Final = 1.0  # seconds between questions to everyone


@dataclass(slots=True)
class LastInfo:
    """What one process of an instance has reported last, section by section."""

    socket: str
    pid: int
    at: float = 0.0  # monotonic seconds
    changes: int = 0  # that were ours, right before it was asked
    is_late: bool = False  # it has been asked, and has not answered in time
    answer: str = ""  # of everyone's question; it is not read before it is needed
    parsed: Sections = field(default_factory=dict)

    def sections(self) -> Sections:
        """Return everything it has reported."""
        if self.answer:
            self.parsed |= info_merge.parse(self.answer)
            self.answer = ""
        return self.parsed


@dataclass(slots=True)
class InfoRequest:
    """A request to one instance."""

    known: LastInfo
    step: int = 0
    used: float = 0.0  # seconds of CPU before this step
    seen: float = 0.0  # the same at the last look
    allowed: float = 0.0  # seconds of CPU for this step
    looks: int = 0  # that have found it at work
    task: "asyncio.Task[Sections | None] | None" = None

    def begin(self, allowed: float) -> None:
        """Note that it is asked now."""
        self.step += 1
        self.used = self.seen = cpu_seconds(self.known.pid)
        self.allowed, self.looks = allowed, 0

    def is_busy(self) -> bool:
        """Whether the instance is busy with something else; False if nothing is known of it yet."""
        if not self.known.sections():
            return False
        state, used = activity(self.known.pid).state, cpu_seconds(self.known.pid)
        if state == "R":  # it may be in line for a CPU
            self.looks += used - self.used > self.allowed
        elif used == self.seen and (state != "D" or self.allowed == WORK):
            self.looks += 1  # it sleeps although it was asked: it waits for a disk, for instance
        else:
            self.looks = 0  # it sleeps because it waits for us: for a connection's next command
        self.seen = used
        return self.looks >= LOOKS


class InfoCollector:
    """Asks the instances for their INFO."""

    def __init__(
        self,
        links: Links,
        tidy: Callable[[int], Awaitable[None]],  # what is ours there, before it is counted
        count_changes: Callable[[int], int],  # of ours
    ) -> None:
        self._links, self._tidy, self._count_changes = links, tidy, count_changes
        self._known: dict[int, LastInfo] = {}
        self._tasks = Tasks()

    async def collect(self, sections: list[bytes], *, tidies: bool = False) -> dict[int, Sections]:
        """Return the INFO of every instance; of one that is late, its last one."""
        asked = {}
        for index in self._links.ready():
            known = self._of(index)
            if not known.is_late:
                question = asked[index] = InfoRequest(known)
                job = self._ask(index, question, sections, tidies=tidies)
                question.task = self._tasks.start(job, f"INFO of instance {index}")
        await self._wait(asked)
        found = {}
        for index in self._links.ready():
            known = self._of(index)
            task = asked[index].task if index in asked else None
            is_late = task is None or not task.done()
            answer = None if task is None or is_late else task.result()
            if answer is not None:
                found[index] = answer
            elif known.sections():  # it is late, or cannot be reached just now
                known.is_late = known.is_late or is_late
                found[index] = only_sections(known.sections(), sections)
        for index in self._stopped() if found else ():
            if last := self._of(index).sections():
                found[index] = only_sections(last, sections)
        return dict(sorted(found.items()))

    def changes(self) -> dict[int, int]:
        """Return how many changes were ours when each instance reported what is shown."""
        return {index: known.changes for index, known in self._known.items()}

    async def collect_forever(self) -> None:
        """Ask all again and again, one after the other; no client waits for that."""
        while True:
            for index in self._links.ready():
                known = self._of(index)
                if not known.is_late:
                    asked = self._tasks.start(self._refresh(index, known), "INFO of everyone")
                    known.is_late = not (await asyncio.wait([asked], timeout=PERIOD))[0]
            await asyncio.sleep(PERIOD)

    async def _refresh(self, index: int, known: LastInfo) -> None:
        changes = self._count_changes(index)
        try:
            answer = await self._links.call(index, b"INFO", b"everything")
        except LinkError:
            return
        finally:
            known.is_late = False
        if isinstance(answer, bytes):  # else a script runs there
            known.answer = answer.decode(errors="replace")
            known.at, known.changes = time.monotonic(), changes

    def age_ms(self, index: int) -> int:
        """Return how old a late instance's INFO is, in milliseconds; else 0."""
        known = self._known.get(index)
        is_late = known is not None and (known.is_late or index in self._stopped())
        return max(int((time.monotonic() - known.at) * 1000), 1) if known and is_late else 0

    def _stopped(self) -> list[int]:
        return [
            index
            for index in self._links.all_instances()
            if self._links.instance(index).state is control.State.STOPPED
        ]

    def _of(self, index: int) -> LastInfo:
        instance = self._links.instance(index)
        known = self._known.get(index)
        if known is None or known.socket != instance.socket:
            known = self._known[index] = LastInfo(instance.socket, instance.pid)
        return known

    async def _wait(self, asked: Mapping[int, InfoRequest]) -> None:
        """Wait briefly for answers; longer only for instances that get no CPU time."""
        began = time.monotonic()
        waiting = list(asked.values())
        while waiting and time.monotonic() < began + PATIENCE:
            tasks = [one.task for one in waiting if one.task]
            await asyncio.wait(tasks, timeout=MOMENT)
            steps = [one.step if one.is_busy() else None for one in waiting]
            # If the loop itself was late, an answer may have arrived that was not read yet.
            for _ in range(TURNS if any(steps) else 0):
                await asyncio.sleep(0)
            waiting = [
                one
                for one, step in zip(waiting, steps, strict=True)
                if one.task and not one.task.done() and one.step != step
            ]

    async def _ask(
        self, index: int, question: InfoRequest, sections: list[bytes], *, tidies: bool
    ) -> Sections | None:
        """Ask one; None if it cannot be reached. LinkError when it says BUSY."""
        known = question.known
        try:
            if tidies:
                question.begin(TIDYING)
                with contextlib.suppress(LinkError):  # they are deleted later
                    await self._tidy(index)
            question.begin(WORK)
            changes = self._count_changes(index)
            answer = await self._links.call(index, b"INFO", *sections)
        except LinkError:
            return None
        finally:
            known.is_late = False
        if not isinstance(answer, bytes):
            raise LinkError(str(answer))
        found = info_merge.parse(answer.decode(errors="replace"))
        known.sections().update(found)
        known.at, known.changes = time.monotonic(), changes
        return found


def only_sections(sections: Sections, names: list[bytes]) -> Sections:
    """Return what INFO shows when it is asked for these sections."""
    if not names or any(name in WHOLE for name in names):
        return sections
    return {title: fields for title, fields in sections.items() if title.lower().encode() in names}

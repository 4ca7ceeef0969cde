"""Decides which worker serves which clients: few workers while they have time, more when they do
not.

An instance is cheap when it gets many commands in one write, and clients on many workers make these
writes smaller. So clients stay together until their worker is saturated, and are brought together
again when few workers are enough.
"""

import asyncio
import logging
import math

from threadis import _core
from threadis.system import machine

log = logging.getLogger(__name__)

LOOK = 0.1  # seconds between two looks
SATURATED = 0.85  # of the time awake: beyond that clients wait for each other
EASY = 0.6  # less awake than this, a worker takes new connections
PATIENCE = 20  # looks at more workers than needed, before clients come together
QUOTAS = 20  # looks between two at the quotas of the threads
FEW = 8  # new connections between two looks; of more than that it gets only its share
WORTH = 0.2  # a difference of load between two workers that moving clients is worth
UNEVEN = 0.1  # of a worker's clients too many, if all workers are saturated
WHOLE = 1000  # thousandths of a load


class WorkerBalancer:
    """Looks at how long the workers are awake, and moves clients between them."""

    def __init__(self, core: _core.Proxy, threads: list[int]) -> None:
        workers = len(threads)
        self._core = core
        self._threads = threads
        self._capacities = [1.0] * workers  # CPUs that each may use
        self._looks = 0
        self._awake = [0] * workers
        self._time = 0.0
        self._saturated = [0] * workers  # looks in a row
        self._lean = 0  # looks in a row

    async def run(self) -> None:
        """Balance again and again, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.balance(loop.time())
            except Exception:
                log.exception("the workers could not be balanced; trying again")
            await asyncio.sleep(LOOK)

    def balance(self, now: float) -> None:
        """Look once, at ``now`` seconds, and move clients."""
        said = self._core.stats()
        awake = [stats["awake_nanoseconds"] for stats in said]
        passed, self._time = now - self._time, now
        if self._looks % QUOTAS == 0:
            self._capacities = [min(machine.quota(thread=tid) or 1.0, 1.0) for tid in self._threads]
        self._looks += 1
        loads = [
            min((new - old) / 1e9 / passed / capacity, 1.0)
            for new, old, capacity in zip(awake, self._awake, self._capacities, strict=True)
        ]
        self._awake = awake
        self._core.set_limit("newcomers-worker", self._least_busy(loads))
        self._core.set_limit("newcomers-room", FEW)
        clients = [stats["clients"] for stats in said]
        if min(loads) > SATURATED:
            self._level(clients)
        elif not self._spread(loads):
            self._gather(loads, clients)

    def _least_busy(self, loads: list[float]) -> int:
        """Return the first worker that has time; else the one that has most."""
        easy = [worker for worker, load in enumerate(loads) if load < EASY]
        return easy[0] if easy else min(range(len(loads)), key=loads.__getitem__)

    def _spread(self, loads: list[float]) -> bool:
        """Move half of the excess to the least loaded worker; whether any worker is overloaded."""
        for worker, load in enumerate(loads):
            self._saturated[worker] = self._saturated[worker] + 1 if load > SATURATED else 0
        takers = sorted(range(len(loads)), key=loads.__getitem__)
        givers = [worker for worker in reversed(takers) if self._saturated[worker] > 1]
        for worker, taker in zip(givers, takers, strict=False):
            difference = loads[worker] - loads[taker]
            if difference > WORTH:
                self._core.give(worker, taker, int(WHOLE * difference / 2 / loads[worker]))
                self._saturated[worker] = 0
        return max(loads) > SATURATED

    def _level(self, clients: list[int]) -> None:
        """All workers are saturated: at least let them have as many clients each."""
        by_count = sorted(range(len(clients)), key=clients.__getitem__)
        to, worker = by_count[0], by_count[-1]
        surplus = (clients[worker] - clients[to]) / 2 / max(clients[worker], 1)
        if surplus > UNEVEN:
            self._core.give(worker, to, int(WHOLE * surplus))

    def _gather(self, loads: list[float], clients: list[int]) -> None:
        """Move clients together if fewer workers are enough; those of the busiest stay."""
        used = sorted((load, worker) for worker, load in enumerate(loads) if clients[worker])
        needed = max(1, math.ceil(sum(load for load, _ in used) / EASY))
        self._lean = self._lean + 1 if len(used) > needed else 0
        if self._lean < PATIENCE:
            return
        self._lean = 0
        leaving, staying = used[:-needed], used[-needed:]
        for place, (_, worker) in enumerate(leaving):
            self._core.give(worker, staying[place % needed][1], WHOLE)

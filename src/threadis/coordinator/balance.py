"""Which worker carries which clients: few workers while these can, more when they cannot.

An instance is cheap when it is written many commands at once, and clients on many workers cut what
each of these has to write: so clients stay together until their worker is saturated, and come
together again when few can carry them.
"""

import asyncio

from threadis import _core

LOOK = 0.1  # seconds between two looks
SATURATED = 0.85  # of the time awake: clients would wait for each other
EASY = 0.6  # less awake than this, a worker takes new connections
LEAN = 0.5  # two workers awake so little together are one too many …
PATIENCE = 20  # … after as many looks
WORTH = 0.2  # a difference of load between two workers that moving clients is worth
UNEVEN = 0.1  # of a worker's clients too many, where nobody has time
WHOLE = 1000  # thousandths of a load


class Balance:
    """Looks at how long the workers are awake, and moves clients."""

    def __init__(self, core: _core.Proxy, workers: int) -> None:
        self._core = core
        self._awake = [0] * workers
        self._time = 0.0
        self._saturated = [0] * workers  # looks in a row
        self._lean = 0  # looks in a row

    async def run(self) -> None:
        """Look again and again; for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self.look(loop.time())
            await asyncio.sleep(LOOK)

    def look(self, now: float) -> None:
        """Look once, at ``now`` seconds."""
        said = self._core.stats()
        awake = [stats["awake_nanoseconds"] for stats in said]
        passed, self._time = now - self._time, now
        loads = [
            min((new - old) / 1e9 / passed, 1.0)
            for new, old in zip(awake, self._awake, strict=True)
        ]
        self._awake = awake
        self._core.set_limit("newcomers-worker", self._easiest(loads))
        clients = [stats["clients"] for stats in said]
        if min(loads) > SATURATED:
            self._level(clients)
        elif not self._spread(loads):
            self._gather(loads, clients)

    def _easiest(self, loads: list[float]) -> int:
        """The first worker that has time, or else the one that has most."""
        easy = [worker for worker, load in enumerate(loads) if load < EASY]
        return easy[0] if easy else min(range(len(loads)), key=loads.__getitem__)

    def _spread(self, loads: list[float]) -> bool:
        """Give half of what is too much to whoever has least; whether anybody has too much."""
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
        """Nobody has time: let at least as many clients share each worker."""
        by_count = sorted(range(len(clients)), key=clients.__getitem__)
        to, worker = by_count[0], by_count[-1]
        surplus = (clients[worker] - clients[to]) / 2 / max(clients[worker], 1)
        if surplus > UNEVEN:
            self._core.give(worker, to, int(WHOLE * surplus))

    def _gather(self, loads: list[float], clients: list[int]) -> None:
        """Bring the clients of the two easiest workers together, if one of them is enough."""
        used = [worker for worker in range(len(loads)) if clients[worker]]
        used.sort(key=loads.__getitem__)
        is_lean = len(used) > 1 and loads[used[0]] + loads[used[1]] < LEAN
        self._lean = self._lean + 1 if is_lean else 0
        if self._lean >= PATIENCE:
            to, worker = sorted(used[:2])
            self._core.give(worker, to, WHOLE)
            self._lean = 0

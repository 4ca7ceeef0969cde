"""Key locks: who may change or read a key while a command works on several instances.

A lock names all its keys at once and is granted in order of arrival, so there is no deadlock and
nobody starves. Once granted, every worker lets its clients wait for those keys and says so when
nothing is in flight that could miss it; from then on the holder is alone with them.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field

from threadis import _core
from threadis.coordinator.links import LinkError

Key = tuple[int, bytes, bool]  # database, key, exclusive


class BusyError(LinkError):
    """A script runs too long; whoever would wait for it is told so."""

    def __init__(self) -> None:
        super().__init__(
            "BUSY a script is running. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        )


@dataclass(eq=False, slots=True)
class Lock:
    """One lock; ``is_kept`` when someone else will release it."""

    token: int
    keys: list[Key]
    everything: bool
    instances: list[int]
    is_told: bool = True  # workers hold their clients' commands back
    granted: asyncio.Future[None] = field(default_factory=asyncio.Future)
    waiting_for: int = 0  # workers that have not said Locked
    is_kept: bool = False


class Locks:
    """The lock table. All methods run in the coordinator's thread."""

    def __init__(self, core: _core.Proxy, workers: int, instances: int) -> None:
        self._core = core
        self._workers = workers
        self._instances = instances
        self._is_busy = False  # a script runs too long
        self._tokens = itertools.count(1)
        self._queue: list[Lock] = []  # not granted yet, oldest first
        self._held: dict[int, Lock] = {}
        self._exclusive: Counter[tuple[int, bytes]] = Counter()
        self._shared: Counter[tuple[int, bytes]] = Counter()

    def count(self) -> int:
        """Return how many locks are held or waited for."""
        return len(self._held) + len(self._queue)

    @contextlib.asynccontextmanager
    async def hold(
        self, keys: Iterable[Key], instances: Collection[int], within: int | None = None
    ) -> AsyncIterator[Lock]:
        """Lock keys; nothing of them is in flight to ``instances`` when this is granted.

        ``within`` is the token of a lock on everything that already covers them.
        """
        if within is not None and within in self._held:
            yield self._held[within]
            return
        merged: dict[tuple[int, bytes], bool] = {}
        for db, key, exclusive in keys:
            merged[db, key] = merged.get((db, key), False) or exclusive
        named = [(db, key, exclusive) for (db, key), exclusive in merged.items()]
        async with self._hold(Lock(next(self._tokens), named, False, sorted(instances))) as lock:
            yield lock

    @contextlib.asynccontextmanager
    async def stand_in_line(
        self, keys: Iterable[tuple[int, bytes]], within: int | None = None
    ) -> AsyncIterator[Lock]:
        """Keep other holders away from keys, but not the clients' commands on one instance.

        Enough for what is one block on one instance, and cheaper: no worker is asked.
        """
        if within is not None and within in self._held:
            yield self._held[within]
            return
        named = [(db, key, True) for db, key in dict.fromkeys(keys)]
        async with self._hold(Lock(next(self._tokens), named, False, [], is_told=False)) as lock:
            yield lock

    @contextlib.asynccontextmanager
    async def hold_everything(self, within: int | None = None) -> AsyncIterator[Lock]:
        """Lock the whole keyspace."""
        if within is not None and within in self._held:
            yield self._held[within]
            return
        lock = Lock(next(self._tokens), [], True, list(range(self._instances)))
        async with self._hold(lock) as held:
            yield held

    @contextlib.asynccontextmanager
    async def _hold(self, lock: Lock) -> AsyncIterator[Lock]:
        self._queue.append(lock)
        try:
            self._grant()
            if self._is_busy and not lock.granted.done():
                raise BusyError
            await lock.granted
            yield lock
        finally:
            if not lock.is_kept:
                self.release(lock)

    def release(self, lock: Lock) -> None:
        """End a lock, or a wait for one."""
        if self._held.pop(lock.token, None) is None:
            self._queue.remove(lock)
        else:
            if lock.is_told:
                self._core.unlock(lock.token)
            for db, key, exclusive in lock.keys:
                counter = self._exclusive if exclusive else self._shared
                counter[db, key] -= 1
                if not counter[db, key]:
                    del counter[db, key]
        self._grant()

    def set_busy(self, busy: bool) -> None:
        """While a script runs too long, nobody waits for a lock: it may be the script's."""
        self._is_busy = busy
        for lock in self._queue if busy else []:
            if not lock.granted.done():
                lock.granted.set_exception(BusyError())

    def locked(self, letter: _core.Locked) -> None:
        """Take note that a lock holds at a worker."""
        lock = self._held.get(letter.token)
        if lock:
            lock.waiting_for -= 1
            if not lock.waiting_for:
                _set(lock.granted)

    def _grant(self) -> None:
        """Grant what conflicts with nothing held and with nothing older that waits."""
        older_exclusive: set[tuple[int, bytes]] = set()
        older_shared: set[tuple[int, bytes]] = set()
        # A lock on everything is held alone.
        everything_held = any(lock.everything for lock in itertools.islice(self._held.values(), 1))
        for lock in list(self._queue):
            if everything_held:
                return
            if lock.everything:
                if not self._held and lock is self._queue[0]:
                    self._begin(lock)
                return
            if self._is_free(lock, older_exclusive, older_shared):
                self._begin(lock)
            else:
                for db, key, exclusive in lock.keys:
                    (older_exclusive if exclusive else older_shared).add((db, key))

    def _is_free(
        self,
        lock: Lock,
        older_exclusive: set[tuple[int, bytes]],
        older_shared: set[tuple[int, bytes]],
    ) -> bool:
        for db, key, exclusive in lock.keys:
            name = (db, key)
            if name in self._exclusive or name in older_exclusive:
                return False
            if exclusive and (name in self._shared or name in older_shared):
                return False
        return True

    def _begin(self, lock: Lock) -> None:
        self._queue.remove(lock)
        self._held[lock.token] = lock
        for db, key, exclusive in lock.keys:
            (self._exclusive if exclusive else self._shared)[db, key] += 1
        if not lock.is_told:
            _set(lock.granted)
            return
        lock.waiting_for = self._workers
        self._core.lock(lock.token, lock.keys, lock.everything, lock.instances)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

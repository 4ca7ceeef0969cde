"""Key locks: who may change or read a key while a command works on several instances.

A lock names all its keys at once and is granted in order of arrival, so there is no deadlock and
nobody starves. Once granted, every worker lets its clients wait for those keys and says so when
nothing is in flight that could miss it; from then on the holder is alone with them.
"""

import asyncio
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from threadis import _core
from threadis.coordinator.links import BusyError

Key = tuple[int, bytes, bool]  # database, key, exclusive


@dataclass(eq=False, slots=True)
class Lock:
    """One lock; ``is_kept`` when someone else will release it."""

    token: int
    keys: list[Key]
    everything: bool
    instances: list[int]
    is_told: bool = True  # workers hold their clients' commands back
    granted: asyncio.Future[None] = field(default_factory=asyncio.Future)
    behind: int = 0  # keys for which it is not its turn yet
    waiting_for: int = 0  # workers that have not said Locked
    is_kept: bool = False


@dataclass(slots=True)
class Want:
    """What a lock wants of a key."""

    exclusive: bool
    has_turn: bool


class Line:
    """The locks that want a key, in order of arrival.

    It is the turn of the first, and if that shares the key, of all behind it that do, up to one
    that does not. Whoever leaves costs only those whose turn comes.
    """

    def __init__(self) -> None:
        self._wants: OrderedDict[Lock, Want] = OrderedDict()
        self._exclusive = 0  # of them

    def join(self, lock: Lock, *, exclusive: bool) -> bool:
        """Stand at the end; whether it is its turn at once."""
        has_turn = not self._wants or not (exclusive or self._exclusive)
        self._wants[lock] = Want(exclusive, has_turn)
        self._exclusive += exclusive
        return has_turn

    def leave(self, lock: Lock) -> list[Lock]:
        """Make room; those whose turn it is now."""
        left = self._wants.pop(lock)
        self._exclusive -= left.exclusive
        found = []
        for other, want in self._wants.items():
            if want.exclusive and other is not next(iter(self._wants)):
                break
            if not want.has_turn:
                want.has_turn = True
                found.append(other)
            if want.exclusive or not left.exclusive:
                break  # those behind it had their turn before, or have it later
        return found

    def __bool__(self) -> bool:
        return bool(self._wants)


class Locks:
    """The lock table. All methods run in the coordinator's thread."""

    def __init__(self, core: _core.Proxy, workers: int, instances: int) -> None:
        self._core = core
        self._workers = workers
        self._instances = instances
        self._is_busy = False  # a script runs too long
        self._tokens = itertools.count(1)
        self._queue: OrderedDict[Lock, None] = OrderedDict()  # not granted yet, oldest first
        self._held: dict[int, Lock] = {}
        self._lines: defaultdict[tuple[int, bytes], Line] = defaultdict(Line)
        self._everything: dict[Lock, None] = {}  # those on everything, oldest first

    def count(self) -> int:
        """Return how many locks are held or waited for."""
        return len(self._held) + len(self._queue)

    def hold(
        self, keys: Iterable[Key], instances: Collection[int], within: int | None = None
    ) -> "Holding":
        """Lock keys; nothing of them is in flight to ``instances`` when this is granted.

        ``within`` is the token of a lock on everything that already covers them.
        """
        if within is not None and within in self._held:
            return Holding(None, self._held[within])
        merged: dict[tuple[int, bytes], bool] = {}
        for db, key, exclusive in keys:
            merged[db, key] = merged.get((db, key), False) or exclusive
        named = [(db, key, exclusive) for (db, key), exclusive in merged.items()]
        return Holding(self, Lock(next(self._tokens), named, False, sorted(instances)))

    def stand_in_line(
        self, keys: Iterable[tuple[int, bytes]], within: int | None = None
    ) -> "Holding":
        """Keep other holders away from keys, but not the clients' commands on one instance.

        Enough for what is one block on one instance, and cheaper: no worker is asked.
        """
        if within is not None and within in self._held:
            return Holding(None, self._held[within])
        named = [(db, key, True) for db, key in dict.fromkeys(keys)]
        return Holding(self, Lock(next(self._tokens), named, False, [], is_told=False))

    def hold_everything(self, within: int | None = None) -> "Holding":
        """Lock the whole keyspace."""
        if within is not None and within in self._held:
            return Holding(None, self._held[within])
        return Holding(self, Lock(next(self._tokens), [], True, list(range(self._instances))))

    async def grant(self, lock: Lock) -> None:
        """Wait until a lock holds."""
        self._queue[lock] = None
        if lock.everything:
            self._everything[lock] = None
        for db, key, exclusive in lock.keys:
            lock.behind += not self._lines[db, key].join(lock, exclusive=exclusive)
        try:
            self._begin_if_free(lock)
            if self._is_busy and not lock.granted.done():
                raise BusyError
            await lock.granted
        except BaseException:
            self.release(lock)
            raise

    def release(self, lock: Lock) -> None:
        """End a lock, or a wait for one."""
        if self._held.pop(lock.token, None) is None:
            del self._queue[lock]
        elif lock.is_told:
            self._core.unlock(lock.token)
        self._everything.pop(lock, None)
        free = []
        for db, key, _ in lock.keys:
            line = self._lines[db, key]
            for other in line.leave(lock):
                other.behind -= 1
                free.append(other)
            if not line:
                del self._lines[db, key]
        if lock.everything:
            free = list(self._queue)
        elif self._everything:
            free += itertools.islice(self._queue, 1)
        for other in free:
            self._begin_if_free(other)

    def set_busy(self, busy: bool) -> None:
        """While a script runs too long, nobody waits for a lock: it may be the script's."""
        self._is_busy = busy
        for lock in self._queue if busy else ():
            if not lock.granted.done():
                lock.granted.set_exception(BusyError())

    def locked(self, letter: _core.Locked) -> None:
        """Take note that a lock holds at a worker."""
        lock = self._held.get(letter.token)
        if lock:
            lock.waiting_for -= 1
            if not lock.waiting_for:
                _set(lock.granted)

    def _begin_if_free(self, lock: Lock) -> None:
        """Grant a lock that conflicts with nothing held and with nothing older that waits."""
        if lock.token in self._held:
            return
        if lock.everything:  # it is held alone
            is_free = not self._held and lock is next(iter(self._queue))
        else:
            older = next(iter(self._everything), None)
            is_free = not lock.behind and (older is None or older.token > lock.token)
        if is_free:
            self._begin(lock)

    def _begin(self, lock: Lock) -> None:
        del self._queue[lock]
        self._held[lock.token] = lock
        if not lock.is_told:
            _set(lock.granted)
            return
        lock.waiting_for = self._workers
        self._core.lock(lock.token, lock.keys, lock.everything, lock.instances)


class Holding:
    """A lock for the length of an ``async with``; without ``locks``, one that somebody holds."""

    __slots__ = ("_lock", "_locks")

    def __init__(self, locks: Locks | None, lock: Lock) -> None:
        self._locks, self._lock = locks, lock

    async def __aenter__(self) -> Lock:
        if self._locks:
            await self._locks.grant(self._lock)
        return self._lock

    async def __aexit__(self, *exception: object) -> None:
        if self._locks and not self._lock.is_kept:
            self._locks.release(self._lock)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

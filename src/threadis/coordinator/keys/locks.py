"""Key locks: which command may change or read a key while another works on several instances.

A lock names all its keys at once and is granted in order of arrival, so there is no deadlock and no
starvation. Once it is granted, every worker holds back its clients' commands on those keys, and
reports when nothing is in flight that could conflict; from then on the holder is alone with them.
The table is in the core (``tables/lock_table.rs``), because workers that commit writes use it, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from threadis import _core
from threadis.coordinator.instances.links import BusyError, LinkError

Key = tuple[int, bytes, bool]  # database, key, exclusive (else shared with its like)
# Called when a client's command gets its lock; raises if the command is not allowed any more.
recheck: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("recheck", default=None)


class InDoubtError(LinkError):
    """Raised instead of waiting for keys in doubt, which may take very long."""

    def __init__(self, instance: int) -> None:
        super().__init__(
            "TRYAGAIN a write over several instances to this key is in doubt until instance "
            f"{instance} is back; the command was not run"
        )


@dataclass(eq=False, slots=True)
class Lock:
    """One lock; ``is_kept``: something else will release it."""

    keys: list[Key]
    everything: bool
    instances: list[int]
    blocks_workers: bool = True  # workers hold their clients' commands back
    skips_in_doubt: bool = False  # on everything but keys in doubt
    waits_for_in_doubt: bool = False  # also for keys in doubt
    token: int = 0  # its name, once it was requested
    is_kept: bool = False


class Locks:
    """The coordinator's locks. All methods run in its thread."""

    def __init__(self, core: _core.Proxy, instances: int) -> None:
        self._table = _core.LockTable(core)
        self._instances = instances
        self._busy = ""  # the error while a script runs too long
        self._waiting: dict[int, tuple[Lock, asyncio.Future[None]]] = {}
        self._held: dict[int, Lock] = {}

    def count(self) -> int:
        """Return how many locks are held or waited for, also by workers."""
        return self._table.count()

    def hold(
        self,
        keys: Iterable[Key],
        instances: Collection[int],
        within: int | None = None,
        *,
        waits_for_in_doubt: bool = False,
    ) -> "Holding":
        """Lock keys; when it is granted, nothing of them is in flight to ``instances``.

        ``within`` is the token of a lock on everything that already covers them.
        """
        if within is not None and within in self._held:
            return Holding(None, self._held[within])
        lock = Lock(list(keys), everything=False, instances=sorted(instances))
        lock.waits_for_in_doubt = waits_for_in_doubt
        return Holding(self, lock)

    def exclude_holders(
        self,
        keys: Iterable[tuple[int, bytes]],
        within: int | None = None,
        *,
        alone: Iterable[tuple[int, bytes]] = (),
    ) -> "Holding":
        """Keep other lock holders away from keys, but no workers.

        That is enough for one block on one instance, which runs blocks in order, and it is cheaper:
        no worker is asked. ``alone`` are names that only one of these may hold.
        """
        if within is not None and within in self._held:
            return Holding(None, self._held[within])
        named = [(db, key, False) for db, key in keys]
        named += [(db, name, True) for db, name in alone]
        return Holding(self, Lock(named, everything=False, instances=[], blocks_workers=False))

    def hold_everything(
        self, within: int | None = None, *, skips_in_doubt: bool = False
    ) -> "Holding":
        """Lock the whole keyspace; ``skips_in_doubt`` if no key is touched."""
        if within is not None and within in self._held:
            return Holding(None, self._held[within])
        lock = Lock([], everything=True, instances=list(range(self._instances)))
        lock.skips_in_doubt = skips_in_doubt
        return Holding(self, lock)

    async def acquire(self, lock: Lock) -> None:
        """Wait until a lock is granted."""
        lock.token, holds = self._table.ask(
            lock.keys, lock.everything, lock.instances, lock.blocks_workers, lock.skips_in_doubt
        )
        try:
            if not holds:
                await self._wait(lock)
            if check := recheck.get():
                await check()
        except BaseException:
            self._table.release(lock.token)
            raise
        self._held[lock.token] = lock

    async def _wait(self, lock: Lock) -> None:
        if self._busy:
            raise BusyError(self._busy)
        granted = asyncio.get_running_loop().create_future()
        self._waiting[lock.token] = (lock, granted)
        self._refuse_to_wait(lock, granted)
        try:
            await granted
        finally:
            del self._waiting[lock.token]

    def _refuse_to_wait(self, lock: Lock, granted: asyncio.Future[None]) -> None:
        instance = None if lock.waits_for_in_doubt else self._table.waits_for(lock.token)
        if instance is not None and not granted.done():
            granted.set_exception(InDoubtError(instance))

    def mark_in_doubt(self, lock: Lock, keys: Iterable[Key], instance: int) -> None:
        """Let a lock keep only these keys; commands on them fail instead of waiting."""
        self._table.doubt(lock.token, list(keys), instance)
        self.in_doubt_changed()

    def in_doubt_changed(self) -> None:
        """Note that there are keys in doubt; a worker may have reported them."""
        for lock, granted in self._waiting.values():
            self._refuse_to_wait(lock, granted)

    def release(self, lock: Lock) -> None:
        """End a lock."""
        del self._held[lock.token]
        self._table.release(lock.token)

    def release_of_worker(self, token: int) -> None:
        """End a lock that a worker has left to us."""
        self._table.release(token)

    def set_busy(self, words: str) -> None:
        """While a script runs too long, nothing waits for a lock: it may be the script's.

        ``words`` is the error; empty: the script has ended.
        """
        self._busy = words
        for _, granted in self._waiting.values() if words else ():
            if not granted.done():
                granted.set_exception(BusyError(words))

    def locked(self, letter: _core.Locked) -> None:
        """Note that a lock was granted."""
        found = self._waiting.get(letter.token)
        if found and not found[1].done():
            found[1].set_result(None)


class Holding:
    """A lock for the length of an ``async with``; without ``locks``, one that is held already."""

    __slots__ = ("_lock", "_locks")

    def __init__(self, locks: Locks | None, lock: Lock) -> None:
        self._locks, self._lock = locks, lock

    async def __aenter__(self) -> Lock:
        if self._locks:
            await self._locks.acquire(self._lock)
        return self._lock

    async def __aexit__(self, *exception: object) -> None:
        if self._locks and not self._lock.is_kept:
            self._locks.release(self._lock)

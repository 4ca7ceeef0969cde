"""Serving clients that wait: for each key, the client that has waited longest is tried first.

Each client is served by its own command, restricted to the key that has changed (see attempts).
"""

import asyncio
import contextlib
import contextvars
import itertools
import logging
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from typing import Final

from threadis import _core, own_names, resp
from threadis.catalog.blocking import FEEDS, LIST, STREAM
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.base.offload import offload
from threadis.coordinator.base.reply import INTERNAL_ERROR
from threadis.coordinator.blocking.attempts import Attempts, PlaceLock
from threadis.coordinator.blocking.ready_keys import ready_keys
from threadis.coordinator.instances.links import LinkError
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.keys.key_watch import KeyWatch, Place
from threadis.coordinator.keys.locks import Lock, recheck
from threadis.coordinator.keys.waiters import AT_ONCE, GROUP, WaitedPlaces, Waiter, Waiters
from threadis.coordinator.multikey.execution import Execution

log = logging.getLogger(__name__)

RETRY: Final = 0.1  # seconds before keys of an instance that does not answer are tried again
AT_MOST: Final = 32  # clients that are tried in one block
MOVES_AT_ONCE: Final = 64  # waiting moves whose targets are locked with their source


class BlockedClients:
    """Knows the waiting clients, notices changes of their keys, and serves them in order."""

    def __init__(
        self,
        execution: Execution,
        core: _core.Proxy,
        acl_checks: AclChecks,
        served: Callable[[_core.Command, bytes], None],
        *,
        runs_again: bool,
    ) -> None:
        self._execution = execution
        self._core, self.waits = core, _core.Waits(core)
        self._links = execution.links
        self.waiters = Waiters()
        self._key_watches = [
            KeyWatch(
                index,
                self._links,
                execution.borrowing.scratch,
                WaitedPlaces(index, self.waiters, execution.table.owner),
                self._keys_changed,
            )
            for index in self._links.all_instances()
        ]
        self.attempts = Attempts(
            execution, acl_checks, self.key_watch, self._finish, served, runs_again=runs_again
        )
        self._again: dict[Place, bool] = {}  # keys being served; whether to look at them again
        self._in_order: Counter[Place] = Counter()  # left to their writers
        self._missed: set[Place] = set()  # of these, those that have changed
        self._tasks = Tasks()

    def key_watch(self, place: Place) -> KeyWatch:
        """Return the watch of a key's instance."""
        return self._key_watches[self._execution.table.owner(*place)]

    def count_armed(self) -> int:
        """Return how many keys are watched."""
        return sum(key_watch.count() for key_watch in self._key_watches)

    async def add(self, waiter: Waiter) -> None:
        """Queue a client; for very many keys in steps, and nothing is tried before the last."""
        keys = waiter.request.keys
        self.waiters.add(waiter)
        async with waiter.turn:
            for start in range(0, len(keys), AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                if waiter.final_reply is None:
                    self._enqueue(waiter, keys[start : start + AT_ONCE])
        if waiter.final_reply is not None:  # after its command has begun to wait
            asyncio.get_running_loop().call_soon(self.give_up, waiter, waiter.final_reply)

    def _enqueue(self, waiter: Waiter, keys: Collection[bytes]) -> None:
        for db, key in self.waiters.enqueue(waiter, keys):
            self.waits.add(db, key)
        is_wide = len(waiter.request.keys) > AT_ONCE
        unarmed: dict[KeyWatch, list[Place]] = defaultdict(list)
        for place in waiter.places[-len(keys) :]:
            key_watch = self.key_watch(place)
            # In a later step it may have been created since: then it is read again.
            if key_watch.is_absent(place) if is_wide else key_watch.is_armed(place[1]):
                key_watch.want(place[1])
            else:
                unarmed[key_watch].append(place)
        for key_watch, places in unarmed.items():
            self._spawn(self._arm(key_watch, places), "alarms")

    async def are_absent(self, places: Collection[Place]) -> bool:
        """Whether all these keys are known not to exist; they are watched from then on."""
        unknown: dict[KeyWatch, list[Place]] = defaultdict(list)
        for place in places:
            key_watch = self.key_watch(place)
            if not key_watch.is_absent(place):
                unknown[key_watch].append(place)
        for key_watch, asked in unknown.items():
            try:
                if await key_watch.arm(asked):
                    return False
            except LinkError:
                return False  # the lookup gets the error
        return all(self.key_watch(place).is_absent(place) for place in places)

    async def _arm(self, key_watch: KeyWatch, places: list[Place]) -> None:
        """Watch keys, once the instance can be reached; serve what exists already."""
        while places := [place for place in places if place in self.waiters]:
            try:
                there = await key_watch.arm(places)
                self.changed([place for place in there if place in self.waiters])
            except LinkError:
                await asyncio.sleep(RETRY)
            else:
                break

    def give_up(self, waiter: Waiter, reply: bytes) -> None:
        """End a wait; if its command is being tried, only if that finds nothing."""
        if waiter.turn.locked():
            waiter.final_reply = reply if waiter.final_reply is None else waiter.final_reply
        else:
            self.attempts.end_with(waiter, reply)

    def _finish(self, waiter: Waiter, reply: bytes) -> None:
        if waiter.is_over:
            return
        waiter.is_over = True
        if waiter.timer:
            waiter.timer.cancel()
        self.waiters.remove(waiter)
        self._dequeue(waiter)
        self._core.reply(waiter.command, reply)
        if waiter.places:
            self._spawn(self._dequeue_all(waiter), "a client that waits no more")

    async def _dequeue_all(self, waiter: Waiter) -> None:
        while waiter.places:
            await asyncio.sleep(0)
            self._dequeue(waiter)

    def _dequeue(self, waiter: Waiter) -> None:
        for db, key in self.waiters.dequeue(waiter):
            self.waits.remove(db, key)
            key_watch = self.key_watch((db, key))
            if all(self.key_watch(other) is not key_watch for other in self.waiters.of_key(key)):
                key_watch.forget(key)

    def _keys_changed(self, places: Collection[Place]) -> None:
        """Keys changed, and are watched again; a key that is gone concerns only XREADGROUP."""
        groups = self.waiters.with_groups()
        self.changed(
            [
                place
                for place in places
                if place in groups or not self.key_watch(place).is_absent(place)
            ]
        )

    @contextlib.contextmanager
    def in_order(self, places: Collection[Place]) -> Iterator[None]:
        """Leave places to the caller, who writes several and serves them in order."""
        self._in_order.update(places)
        try:
            yield
        finally:
            self._in_order.subtract(places)
            self._in_order = +self._in_order
            missed = self._missed - self._in_order.keys()
            self._missed -= missed
            self.changed(missed)

    def changed(self, places: Collection[Place]) -> None:
        """Serve keys soon: something has changed there, and they are watched again."""
        if len(places) > AT_MOST:
            self._spawn(self._changed_at_once(places), "looking at what has changed")
        else:
            self._changed(places)

    async def _changed_at_once(self, places: Collection[Place]) -> None:
        self._changed(await self._ready_keys(places))

    def _changed(self, places: Iterable[Place]) -> None:
        for place in places:
            if place in self._in_order:
                self._missed.add(place)
                continue
            is_served = place in self._again
            self._again[place] = True
            if not is_served:
                self._spawn(self._serve_soon(place), "serving who waits")

    async def _serve_soon(self, place: Place) -> None:
        try:
            while self._again[place] and place in self.waiters:
                self._again[place] = False
                try:
                    async with self.hold([place]) as held:
                        await self.serve([place], held)
                except LinkError:
                    self._again[place] = True
                    await asyncio.sleep(RETRY)
        except Exception:
            log.exception("clients could not be served")
            for waiter in self.waiters.all_at(place):
                self.give_up(waiter, INTERNAL_ERROR)
        finally:
            del self._again[place]

    def waited_with_prefix(self, db: int, prefix: bytes) -> list[Place]:
        """Return the keys with this prefix that clients wait for."""
        named = ((db, key) for key in self.waits.beginning(db, prefix))
        return [place for place in named if place in self.waiters]

    def with_move_targets(self, places: Iterable[Place]) -> set[Place]:
        """Return these places, and the targets of waiting moves from them."""
        found = set(places)
        if not self.waiters.count_moves():
            return found  # there may be very many
        todo = list(found)
        while todo:
            line = self.waiters.queue(todo.pop(), LIST)
            for waiter in itertools.islice(line, MOVES_AT_ONCE):
                if waiter.request.target is not None:
                    target = (waiter.db, waiter.request.target)
                    if target not in found:
                        found.add(target)
                        todo.append(target)
        return found

    def locked_places(self, lock: Lock, places: Iterable[Place]) -> PlaceLock:
        """Return which places a writer's lock covers."""
        if lock.everything:
            return PlaceLock(lock, self.with_move_targets(places))
        return PlaceLock(lock, {(db, key) for db, key, exclusive in lock.keys if exclusive})

    @contextlib.asynccontextmanager
    async def hold(
        self, places: list[Place], within: int | None = None
    ) -> AsyncIterator[PlaceLock]:
        """Lock places and the targets of moves; on one instance, only against other servers of the
        key.
        """
        if self.waiters.count_moves():
            closure = self.with_move_targets(places)
        else:
            closure = await offload(len(places), set, places)
        async with await offload(len(closure), self._locking, closure, within) as lock:
            yield PlaceLock(lock, closure)

    def _locking(
        self, closure: set[Place], within: int | None
    ) -> contextlib.AbstractAsyncContextManager[Lock]:
        if self._are_together(closure):
            alone = [(db, own_names.SERVING_LOCK + key) for db, key in closure]
            return self._execution.locks.exclude_holders(closure, within, alone=alone)
        return self._execution.hold([(db, key, True) for db, key in closure], within)

    def _are_together(self, places: Iterable[Place]) -> bool:
        """Whether places are on one instance."""
        owner = self._execution.table.owner
        first = next((owner(*place) for place in places), None)
        return all(owner(*place) == first for place in places)

    async def serve(
        self, places: Collection[Place], held: PlaceLock, line: bytes | None = None
    ) -> None:
        """Give elements to the clients that wait for them, or to those in one queue."""
        types = await self._ready_keys(places)
        todo = deque(types)
        while todo and self.waiters:
            place = todo.popleft()
            lines = self.waiters.queues(place) if line is None else [line]
            if any(self.waiters.queue(place, name) for name in lines):
                is_plain = (
                    len(lines) == 1 and lines[0] != STREAM
                )  # the attempt returns the type, too
                found = types.get(place)
                if found is None:
                    found = lines[0] if is_plain else await self.attempts.type(place)
                if found not in (STREAM, b"none"):
                    for waiter in self.waiters.queue(place, STREAM):
                        waiter.wrong_type_keys.add(place[1])
                for name in lines:
                    if name == STREAM == found:
                        await self._serve_readers(place, held)
                    elif name == found or name.startswith(GROUP):
                        for target in await self._serve_queue(place, name, held):
                            types.pop(target, None)  # it was read before this move
                            todo.append(target)

    async def _ready_keys(self, places: Collection[Place]) -> dict[Place, bytes | None]:
        owner, look = self._execution.table.owner, self.attempts.ask
        return await ready_keys(places, self.waiters, owner, look)

    async def _serve_queue(self, place: Place, line: bytes, held: PlaceLock) -> list[Place]:
        """Serve one client after the other, until the key is empty.

        Returns the places where moves have put something.
        """
        db, key = place
        targets = []
        most = 1  # are tried at once: more with each time that they have found something
        while waiter := self.waiters.first(place, line):
            target = None
            if waiter.request.target is not None:
                target = (db, waiter.request.target)
                if target not in held.places:
                    self.changed([place])
                    break
            everybody, protocol = self.waiters.queue(place, line), waiter.command.info.resp
            some = self.attempts.pick_batch(everybody, most, key, held, protocol)
            block = await self.attempts.try_together(some, place) if len(some) > 1 else None
            reply = block.last if block else await self.attempts.try_one(waiter, key, held)
            if reply in resp.NULLS:
                break
            if target and reply and not reply.startswith(b"-"):
                targets.append(target)
            is_refused = len(some) > 1 and not block  # then one by one from here on
            most = 0 if is_refused else min(2 * most, AT_MOST)
        return targets

    async def _serve_readers(self, place: Place, held: PlaceLock) -> None:
        """Let all clients read that wait for a stream's entries; these stay where they are."""
        everybody, key = list(self.waiters.queue(place, STREAM)), place[1]
        for start in range(0, len(everybody), AT_MOST):
            some = everybody[start : start + AT_MOST]
            protocol = some[0].command.info.resp
            plain = [one for one in some if self.attempts.is_plain(one, key, held, protocol)]
            plain = self.attempts.pick_batch(plain, AT_MOST, key, held, protocol)
            if len(plain) < 2 or not await self.attempts.try_together(plain, place):
                plain = []
            for waiter in some:
                if waiter not in plain and not waiter.is_over:
                    await self.attempts.try_one(waiter, key, held)

    async def write_and_serve(
        self, command: _core.Command, name: str, place: Place
    ) -> bytes | None:
        """Run a command that feeds a key, and the commands of the clients that it serves, in one
        block.

        No other command comes between, as on one server, and no worker has to be asked. None if
        that is not possible: then nothing has run.
        """
        type_, first = FEEDS.get(name), self.waiters.first(place, LIST)
        if type_ is None or (first and first.request.target is not None):
            return None
        async with self.hold([place]) as held:
            waiters = self._clients_to_serve(command, type_, place, held)
            block = (
                await self.attempts.try_together(waiters, place, command.args) if waiters else None
            )
            if block is None:
                return None
            if block.left == type_ != STREAM:
                try:
                    await self.serve([place], held)
                except LinkError:  # the command has run
                    self.changed([place])
            return block.first

    def _clients_to_serve(
        self, command: _core.Command, type_: bytes, place: Place, held: PlaceLock
    ) -> list[Waiter]:
        """Return the clients that may get something; none if they cannot be tried together."""
        found: list[Waiter] = []
        for name in self.waiters.queues(place):
            if name == type_ or (type_ == STREAM and name.startswith(GROUP)):
                line = self.waiters.queue(place, name)
                elements = 1 if name.startswith(GROUP) else len(command.args) - 2
                count = len(line) if name == STREAM else min(len(line), elements)
                protocol = command.info.resp
                if len(found) + count > AT_MOST:
                    return []
                some = self.attempts.pick_batch(line, count, place[1], held, protocol)
                found += some
                if len(some) < min(count, len(self.waiters.queue(place, name))):
                    return []
        return found

    def _spawn(self, job: Coroutine[None, None, None], what: str) -> None:
        context = contextvars.copy_context()
        context.run(recheck.set, None)  # it does not act for the client that caused it
        self._tasks.start(job, what, context)

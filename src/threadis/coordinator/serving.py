"""Serving clients that wait: for one key, whoever has waited longest is tried first.

Each is served by its own command, restricted to the key that has changed, inside MULTI … EXEC,
where a server never blocks; so errors, replies and events are the server's.
"""

import asyncio
import contextlib
import contextvars
import itertools
import logging
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from threadis import _core, resp
from threadis.coordinator import scarcity
from threadis.coordinator.alarms import Alarms, Place
from threadis.coordinator.departures import LEFT, has_hung_up
from threadis.coordinator.execution import Execution
from threadis.coordinator.links import Kind, LinkError, UnknownOutcomeError, Words, value
from threadis.coordinator.locks import Lock, proviso
from threadis.coordinator.tasks import Tasks
from threadis.coordinator.verdicts import Verdicts
from threadis.coordinator.waiters import GROUP, LIST, STREAM, Request, Waiter, Waiters

log = logging.getLogger(__name__)

RETRY: Final = 0.1  # seconds before keys of an instance that does not answer are tried again
AT_ONCE: Final = 8  # commands of waiting clients that an instance is asked at the same time
SERVED: Final = b"\0threadis:served:"  # begins the name of the lock of who serves a key
MOVES_AT_ONCE: Final = 64  # waiting moves whose targets are locked with their source
# What Redis 7.0 says to XREADGROUP; later servers run the command again.
NO_STREAM: Final = b"-UNBLOCKED the stream key no longer exists\r\n"
NO_GROUP: Final = b"-NOGROUP the consumer group this client was blocked on no longer exists\r\n"

FAILED: Final = resp.error("ERR threadis: internal error, see the log")
WRONG_TYPE: Final = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"


@dataclass(frozen=True, slots=True)
class Held:
    """A lock, and the places it covers."""

    lock: Lock
    places: set[Place]


class Serving:
    """Knows who waits, hears of changes, and gives what is there to whoever is next."""

    def __init__(
        self,
        execution: Execution,
        core: _core.Proxy,
        verdicts: Verdicts,
        served: Callable[[_core.Command], None],
        *,
        runs_again: bool,
    ) -> None:
        self._execution = execution
        self._served = served
        self._verdicts = verdicts
        self._core = core
        self._runs_again = runs_again  # the server runs a blocked command again: 7.2 and later
        self._links = execution.links
        self.waiters = Waiters()
        self._alarms = [
            Alarms(
                index,
                self._links,
                execution.borrowing.scratch,
                Wanted(index, self.waiters, execution),
                self._went_off,
            )
            for index in self._links.everyone()
        ]
        self._turns = [asyncio.Semaphore(AT_ONCE) for _ in self._links.everyone()]
        self._again: dict[Place, bool] = {}  # being served; whether it must be looked at again
        self._in_order: Counter[Place] = Counter()  # left to who writes them
        self._missed: set[Place] = set()  # of these, those of which an alarm has told
        self._tasks = Tasks()

    def alarms(self, place: Place) -> Alarms:
        """Return the alarms of a key's instance."""
        return self._alarms[self._execution.table.owner(*place)]

    def count_armed(self) -> int:
        """Return how many alarms are armed."""
        return sum(alarms.count() for alarms in self._alarms)

    def add(self, waiter: Waiter) -> None:
        """Let a client wait."""
        for db, key in self.waiters.add(waiter):
            self._core.wait_for(db, key)
        unarmed: dict[Alarms, list[Place]] = defaultdict(list)
        for place in waiter.places:
            alarms = self.alarms(place)
            if alarms.is_armed(place[1]):
                alarms.want(place[1])
            else:
                unarmed[alarms].append(place)
        for alarms, places in unarmed.items():
            self._spawn(self._arm(alarms, places), "alarms")

    async def are_absent(self, places: Collection[Place]) -> bool:
        """Whether none of these keys is there, as far as the alarms know, which then are armed."""
        unknown: dict[Alarms, list[Place]] = defaultdict(list)
        for place in places:
            alarms = self.alarms(place)
            if not alarms.is_absent(place):
                unknown[alarms].append(place)
        for alarms, asked in unknown.items():
            if await alarms.arm(asked):
                return False
        return all(self.alarms(place).is_absent(place) for place in places)

    async def _arm(self, alarms: Alarms, places: list[Place]) -> None:
        """Arm alarms, as soon as the instance can be reached; serve what is there meanwhile."""
        while places := [place for place in places if place in self.waiters]:
            try:
                self.changed(await alarms.arm(places))
            except LinkError:
                await asyncio.sleep(RETRY)
            else:
                break

    def give_up(self, waiter: Waiter, reply: bytes) -> None:
        """End a wait, unless its command is just being tried; then if that finds nothing."""
        if waiter.turn.locked():
            waiter.verdict = reply if waiter.verdict is None else waiter.verdict
        else:
            self._finish(waiter, reply)

    def _finish(self, waiter: Waiter, reply: bytes) -> None:
        if waiter.is_over:
            return
        waiter.is_over = True
        if waiter.timer:
            waiter.timer.cancel()
        for db, key in self.waiters.remove(waiter):
            self._core.unwait(db, key)
            alarms = self.alarms((db, key))
            if all(self.alarms(other) is not alarms for other in self.waiters.of_key(key)):
                alarms.forget(key)
        self._core.reply(waiter.command, reply)

    def _went_off(self, places: Collection[Place]) -> None:
        """Alarms were armed again; what is not there concerns only those who need it to be."""
        groups = self.waiters.with_groups()
        self.changed(
            [
                place
                for place in places
                if place in groups or not self.alarms(place).is_absent(place)
            ]
        )

    @contextlib.contextmanager
    def in_order(self, places: Collection[Place]) -> Iterator[None]:
        """Leave places to the caller, who writes several of them, and serves them one by one.

        Their alarms would come from several instances, in any order.
        """
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
        """Serve keys soon: something has changed there."""
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
            for waiter in self.waiters.at(place):
                self.give_up(waiter, FAILED)
        finally:
            del self._again[place]

    def closure(self, places: Iterable[Place]) -> set[Place]:
        """These places, and where waiting moves would carry what appears there."""
        found = set(places)
        todo = list(found)
        while todo:
            line = self.waiters.line(todo.pop(), LIST)
            for waiter in itertools.islice(line, MOVES_AT_ONCE):
                if waiter.request.target is not None:
                    target = (waiter.db, waiter.request.target)
                    if target not in found:
                        found.add(target)
                        todo.append(target)
        return found

    @contextlib.asynccontextmanager
    async def hold(self, places: list[Place], within: int | None = None) -> AsyncIterator[Held]:
        """Lock places and what hangs on them; if these are on one instance, only as who serves."""
        closure = self.closure(places)
        manager: contextlib.AbstractAsyncContextManager[Lock]
        if len({self._execution.table.owner(db, key) for db, key in closure}) <= 1:
            alone = [(db, SERVED + key) for db, key in closure]
            manager = self._execution.locks.stand_in_line(closure, within, alone=alone)
        else:
            manager = self._execution.hold([(db, key, True) for db, key in closure], within)
        async with manager as lock:
            yield Held(lock, closure)

    async def serve(self, places: Collection[Place], held: Held, line: bytes | None = None) -> None:
        """Give what is there to those who wait for it, or to those in one line."""
        todo = deque(places)
        while todo:
            place = todo.popleft()
            lines = self.waiters.lines(place) if line is None else [line]
            if any(self.waiters.line(place, name) for name in lines):
                found = await self.type(place)
                for name in lines:
                    if name == STREAM == found:
                        await self._show(place, held)
                    elif name == found or name.startswith(GROUP):
                        todo.extend(await self._serve_line(place, name, held))

    async def _serve_line(self, place: Place, line: bytes, held: Held) -> list[Place]:
        """Let one after the other take something, until there is nothing left.

        Returns the places where moves have put something.
        """
        db, key = place
        targets = []
        while waiter := self.waiters.first(place, line):
            target = None
            if waiter.request.target is not None:
                target = (db, waiter.request.target)
                if target not in held.places:
                    self.changed([place])
                    break
            reply = await self._serve_one(waiter, key, held)
            if reply in resp.NULLS:
                break
            if target and reply and not reply.startswith(b"-"):
                targets.append(target)
        return targets

    async def _serve_one(self, waiter: Waiter, key: bytes, held: Held) -> bytes:
        """Try one client's command; what it is answered, if that ends its wait."""
        async with waiter.turn:  # another of its keys may be served just now
            if waiter.is_over:
                return LEFT
            if has_hung_up(waiter.command):
                self._finish(waiter, LEFT)
                return LEFT
            # Who runs a command again asks again whether it may.
            if self._runs_again and (refusal := await self._verdicts.refusal(waiter.command)):
                self._finish(waiter, refusal)
                return refusal
            target = waiter.request.target
            changed = [key] if target is None else [key, target]
            # Whoever tracks what he is given hears of it behind his reply.
            async with self._execution.tracking.changing(waiter.command, changed):
                wish = waiter.request
                if not self._runs_again or wish.target is not None:
                    return await self._attempt(waiter, [key], held)
                if wish.streams:
                    covered = {one for db, one in held.places if db == waiter.db} | {key}
                    keys = [key, *(one for one in covered if one != key and one in wish.keys)]
                    return await self._attempt(waiter, keys, held)
                return await self._run_again(waiter, key, held)

    async def _run_again(self, waiter: Waiter, key: bytes, held: Held) -> bytes:
        """Try a command as a server does that runs it again: from its first key on.

        What was written together with this key may come before it; and a key before it that is of
        another type by now is an error.
        """
        wish = waiter.request
        for one in dict.fromkeys(wish.keys[: wish.keys.index(key)]):
            place = (waiter.db, one)
            is_held = place in held.places
            if not is_held and self.alarms(place).is_absent(place):
                continue
            try:
                found = await self.type(place)
            except LinkError:
                continue  # nobody knows
            if found == wish.type and is_held:
                reply = await self._attempt(waiter, [one], held)
                if waiter.is_over:
                    return reply
            elif found not in (wish.type, b"none"):
                self._served(waiter.command)
                self._finish(waiter, WRONG_TYPE)
                return WRONG_TYPE
        return await self._attempt(waiter, [key], held)

    async def _show(self, place: Place, held: Held) -> None:
        """Let all who wait for a stream's entries look; nobody takes any away."""
        for waiter in list(self.waiters.line(place, STREAM)):
            await self._serve_one(waiter, place[1], held)

    async def type(self, place: Place) -> bytes:
        """Ask for a key's type."""
        db, key = place
        index = self._execution.table.owner(db, key)
        found = value((await self.raw(index, [[b"TYPE", key]], db, Kind()))[0])
        return found if isinstance(found, bytes) else b""

    async def raw(self, index: int, commands: list[Words], db: int, kind: Kind) -> list[bytes]:
        """Ask an instance; few at the same time, so that ten thousand clients can wait."""
        async with self._turns[index]:
            return await self._links.raw(index, commands, db=db, kind=kind)

    async def _attempt(self, waiter: Waiter, keys: list[bytes], held: Held) -> bytes:
        """Try a waiting client's command for some keys; unless it finds nothing, its wait ends."""
        wish, owner, key = waiter.request, self._execution.table.owner, keys[0]
        # Who runs again asks for a stream as often as it is named; Redis 7.0 once, as named first.
        words = wish.streams.all_of(keys) if wish.streams and self._runs_again else wish.only(key)
        reply = resp.null_array(waiter.kind.resp)
        try:
            index = owner(waiter.db, key)
            if wish.target is not None and owner(waiter.db, wish.target) != index:
                if await self.type((waiter.db, key)) == wish.type:
                    reply = await self._execution.execute(
                        wish.move(), waiter.db, waiter.kind, held.lock.token
                    )
            elif len(keys) > 1:
                token = held.lock.token
                reply = await self._execution.execute(words, waiter.db, waiter.kind, token)
            else:
                found, reply = await self.block(index, words, key, waiter.db, waiter.kind)
                if found != wish.type:
                    reply = self._key_is_gone(wish, reply)
                elif wish.needs_key and reply.startswith(b"-NOGROUP") and not self._runs_again:
                    reply = NO_GROUP
        except UnknownOutcomeError as error:
            reply = resp.error(str(error))
        finally:
            if reply not in resp.NULLS:
                self._served(waiter.command)
                self._finish(waiter, reply)
            elif waiter.verdict is not None:
                self._finish(waiter, waiter.verdict)
        return reply

    def _key_is_gone(self, wish: Request, reply: bytes) -> bytes:
        """What a client hears whose key is not there, or of another type."""
        if wish.needs_key:
            return reply if self._runs_again else NO_STREAM
        return resp.null_array(2)  # it goes on waiting

    async def block(
        self, index: int, words: Words, key: bytes, db: int, kind: Kind
    ) -> tuple[bytes, bytes]:
        """Run a command where it cannot block; the type of a key before it, and the reply."""
        block: list[Words] = [[b"MULTI"], [b"TYPE", key], words, [b"EXEC"]]
        replies = await self.raw(index, block, db, kind)
        is_refused = not replies[-1].startswith(b"*") and not self._execution.need_memory([words])
        if is_refused and scarcity.tells([words], kind.resp):
            block = [scarcity.block([[b"TYPE", key], scarcity.at_once(words)], kind.resp)]
            replies = await self.raw(index, block, db, kind)
            found, reply = scarcity.results(replies[0], []) or (b"+none\r\n", replies[0])
            return value(found), scarcity.as_waited(words, reply, kind.resp)
        if not replies[-1].startswith(b"*"):
            return b"", replies[2] if replies[2].startswith(b"-") else replies[-1]
        found, reply = _core.elements(replies[-1])
        return value(found), reply

    def _spawn(self, job: Coroutine[None, None, None], what: str) -> None:
        context = contextvars.copy_context()
        context.run(proviso.set, None)  # it is not for whoever has brought it about
        self._tasks.start(job, what, context)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The places at one instance for which someone waits."""

    index: int
    waiters: Waiters
    execution: Execution

    def __call__(self, key: bytes | None) -> list[Place]:
        """Those of a key; None: all."""
        places = self.waiters.places() if key is None else self.waiters.of_key(key)
        owner = self.execution.table.owner
        return [place for place in places if owner(*place) == self.index]

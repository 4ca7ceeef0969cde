"""WATCH and EXEC, where one block on one instance is not enough.

A watch is an exclusive connection to each instance with watched keys; whether it is still good is
asked by an empty MULTI … EXEC there, under key locks. EXEC then goes one of four ways::

    everything on one instance, watched or not  one block there, on the watching connection
    ordinary commands on several instances      one block on each, all or nothing (commits)
    a command that spans instances itself       the whole on borrowed keys (borrowing)
    SELECT, PUBLISH, INFO, EVAL …               the worker runs them in order, nobody else may
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar
from weakref import WeakValueDictionary

from threadis import _core, resp
from threadis.coordinator.answer import Answer
from threadis.coordinator.blocking import Blocking
from threadis.coordinator.busy import Busy
from threadis.coordinator.execution import Execution, lock_names
from threadis.coordinator.links import Kind, LinkError, Words
from threadis.coordinator.locks import Key, Lock
from threadis.coordinator.offload import offload
from threadis.coordinator.phases import RefusedError
from threadis.coordinator.plans import reaches_other_databases
from threadis.coordinator.table import Access, Parsed
from threadis.coordinator.verdicts import Verdicts
from threadis.coordinator.watches import Watch

ClientKey = tuple[int, int, int]  # worker, place, generation
One = TypeVar("One")
ABORTED = b"-EXECABORT Transaction discarded because of previous errors.\r\n"

PLAIN_ROUTES = frozenset({"keys", "split"})
# Run by the worker without a look at the keyspace: they need no lock of their own.
HARMLESS_ROUTES = frozenset({"session", "any", "pubsub"})


class Transactions:
    """The clients' watches, and EXEC."""

    def __init__(
        self,
        execution: Execution,
        core: _core.Proxy,
        verdicts: Verdicts,
        blocking: Blocking,
        busy: Busy,
    ) -> None:
        self._tracking = execution.tracking
        self._verdicts = verdicts
        self._busy = busy
        self._execution = execution
        self._blocking = blocking
        self._core = core
        self._watches: dict[ClientKey, Watch] = {}
        self._running: dict[ClientKey, AsyncExitStack] = {}
        # One thing at a time for a client: it may vanish while its watching connections are asked.
        self._turns: WeakValueDictionary[ClientKey, asyncio.Lock] = WeakValueDictionary()

    def count(self) -> int:
        """Return how many clients watch keys."""
        return len(self._watches)

    def _turn(self, client: ClientKey) -> asyncio.Lock:
        return self._turns.setdefault(client, asyncio.Lock())

    async def watch(self, command: _core.Command) -> Answer:
        """WATCH key …"""
        async with self._turn(_client(command)):
            return await self._watch(command, _client(command))

    async def _watch(self, command: _core.Command, client: ClientKey) -> Answer:
        db = command.info.db
        watch = self._watches.get(client)
        if watch is None:
            watch = Watch(self._execution.links, Kind(resp=command.info.resp))
            self._watches[client] = watch
        by_owner: dict[int, list[bytes]] = defaultdict(list)
        for key in command.args[1:]:
            by_owner[self._execution.table.owner(db, key)].append(key)
        for index, keys in by_owner.items():
            reply = await watch.add(index, keys, db)
            if reply != resp.OK:
                return Answer(reply, watching=True)
        return Answer(resp.OK, watching=True)

    async def unwatch(self, command: _core.Command) -> Answer:
        """UNWATCH, and DISCARD of a client that watches."""
        async with self._turn(_client(command)):
            await self._forget(_client(command))
        return Answer(resp.OK, watching=False)

    async def _forget(self, client: ClientKey) -> None:
        """End what a client had: it is gone, or does not watch any more."""
        watch = self._watches.pop(client, None)
        if watch:
            await watch.end()

    async def gone(self, client: ClientKey) -> None:
        """Take note that a client is gone."""
        async with self._turn(client):
            await self._forget(client)
        await self.finished(client)

    async def exec(self, command: _core.Command) -> Answer | None:
        """EXEC; None if the worker will answer."""
        async with self._turn(_client(command)):
            return await self._answer(command, _client(command))

    async def _answer(self, command: _core.Command, client: ClientKey) -> Answer | None:
        if refusal := await self._busy.refusal():
            await self._forget(client)
            return Answer(_aborted(refusal), watching=False)
        if command.queued is None:
            await self._forget(client)
            return Answer(ABORTED, watching=False)
        try:
            reply = await self._exec(command, client, self._watches.get(client))
        except RefusedError as error:
            reply = _aborted(error.reply)
        finally:
            await self._forget(client)
        return None if reply is None else Answer(reply, watching=False)

    async def _exec(
        self, command: _core.Command, client: ClientKey, watch: Watch | None
    ) -> bytes | None:
        args, kind, db = command.queued or [], Kind(resp=command.info.resp), command.info.db
        queued, owners = await offload(len(args), self._parse, args, db)
        instances = set().union(*owners)
        is_plain = all(self._is_plain(parsed) for parsed in queued)
        is_heard = not self._tracking.is_unheard(command)
        link = watch.only_link() if watch else None
        is_on_one = link is not None and instances <= {link.index}
        if is_plain and watch and link and is_on_one and watch.kind == kind and is_heard:
            await link.select(db)
            touched = [(db, access.key) for parsed in queued for access in parsed.keys]
            # Not between the look and the write of someone who works on several instances.
            async with self._execution.locks.stand_in_line([*touched, *watch.keys]):
                denied = await self._verdicts.denied(command)
                words = [parsed.args for parsed in _allowed(queued, denied)]
                reply = (await link.ask([b"MULTI"], *words, [b"EXEC"], wait=None))[-1]
                return _with_denials(reply, denied) if denied else reply
        if is_plain:
            keys = [access for parsed in queued for access in parsed.keys]
            written = [(db, access.key) for access in keys if access.writes]
            await self._blocking.all_known(written)
            also = self._blocking.also_lock(written)
            names = [*lock_names(keys, db), *(watch.locks() if watch else ()), *also]
            async with self._execution.hold(names) as lock:
                if watch and not await watch.is_clean():
                    return _null(command)
                denied = await self._verdicts.denied(command)
                queued, owners = _allowed(queued, denied), _allowed(owners, denied)
                if not queued:
                    return _with_denials(b"*0\r\n", denied)
                changing = self._tracking.changing(command, [key for _, key in written])
                async with changing as gone, self._execution.events.of_one_command(db):
                    if all(len(found) <= 1 for found in owners):
                        parts = await self._parts(queued, lock, db, kind)
                    else:
                        commands = [parsed.args for parsed in queued]
                        parts = await self._execution.borrow_all(commands, keys, db, kind, lock)
                    if not is_heard:
                        gone += await self._execution.missing(keys, db)
                await self._blocking.serve(written, lock)
                return _with_denials(resp.array(parts), denied)
        return await self._run_in_order(command, client, watch, queued, instances)

    def _parse(self, commands: Sequence[Words], db: int) -> tuple[list[Parsed], list[set[int]]]:
        """Parse commands; with the instances of the keys of each."""
        queued = [self._execution.table.parse(args) for args in commands]
        return queued, [self._execution.table.owners(parsed, db) for parsed in queued]

    def _is_plain(self, parsed: Parsed) -> bool:
        row = parsed.row
        return (
            row.route in PLAIN_ROUTES
            and bool(parsed.keys)
            and not row.needs_coordinator
            and (row.name == "copy" or not row.special_words)
            and not reaches_other_databases(parsed)
        )

    async def _parts(self, queued: list[Parsed], lock: Lock, db: int, kind: Kind) -> list[bytes]:
        """One block on each instance; the replies in the client's order."""
        parts: dict[int, list[Words]] = defaultdict(list)
        places = []
        for parsed in queued:
            index = next(iter(self._execution.table.owners(parsed, db)))
            places.append((index, len(parts[index])))
            parts[index].append(parsed.args)
        needs_memory = any(parsed.row.needs_memory for parsed in queued)
        steps = {place: step for step, place in enumerate(places)}
        replies = await self._execution.commit(
            dict(parts), lock, db, kind, needs_memory=needs_memory, steps=steps
        )
        return [replies[index][at] for index, at in places]

    async def _run_in_order(
        self,
        command: _core.Command,
        client: ClientKey,
        watch: Watch | None,
        queued: list[Parsed],
        instances: Collection[int],
    ) -> bytes | None:
        """Let the worker run the commands as if they came now, while nobody else may.

        LinkError, before anything has happened, if it is known that an instance would not.
        """
        stack = AsyncExitStack()
        db = command.info.db
        needed: Collection[int] = self._execution.links.everyone()
        if all(
            self._is_plain(parsed) or parsed.row.route in HARMLESS_ROUTES for parsed in queued
        ) and not any(parsed.row.name == "select" for parsed in queued):
            needed = instances
            keys: list[Access] = [access for parsed in queued for access in parsed.keys]
            names: list[Key] = [*lock_names(keys, db), *(watch.locks() if watch else ())]
            lock = await stack.enter_async_context(self._execution.hold(names))
        else:
            lock = await stack.enter_async_context(self._execution.locks.hold_everything())
        if watch and not await watch.is_clean():
            await stack.aclose()
            return _null(command)
        links = self._execution.links
        ready = set(links.ready()) - links.unprepared
        if down := [index for index in needed if index not in ready]:
            await stack.aclose()
            raise LinkError(f"TRYAGAIN instance {down[0]} is not ready; nothing was run")
        touched = [access.key for parsed in queued for access in parsed.keys]
        await stack.enter_async_context(self._tracking.changing(command, touched, once=True))
        self._running[client] = stack
        self._core.run_queued(command, [list(parsed.args) for parsed in queued], lock.token)
        return None

    async def finished(self, client: ClientKey) -> None:
        """Take note that a worker has run what it was told to."""
        stack = self._running.pop(client, None)
        if stack:
            await stack.aclose()


def _aborted(why: bytes) -> bytes:
    """EXEC's refusal, in the words of the servers."""
    if why.startswith(b"-EXECABORT") or not why.startswith(b"-"):
        return why
    return b"-EXECABORT Transaction discarded because of: " + why[1:]


def _client(command: _core.Command) -> ClientKey:
    return (command.worker, command.place, command.generation)


def _allowed(queued: list[One], denied: dict[int, bytes]) -> list[One]:
    return [one for at, one in enumerate(queued) if at not in denied]


def _with_denials(reply: bytes, denied: dict[int, bytes]) -> bytes:
    """EXEC's reply, with what was not run in its place; or its refusal."""
    if not denied or not reply.startswith(b"*") or reply.startswith(b"*-"):
        return reply
    parts = _core.elements(reply)
    for at in sorted(denied):
        parts.insert(at, denied[at])
    return resp.array(parts)


def _null(command: _core.Command) -> bytes:
    return b"_\r\n" if command.info.resp == 3 else b"*-1\r\n"

"""WATCH and EXEC, where one block on one instance is not enough.

A watch is an exclusive connection to each instance with watched keys; an empty MULTI … EXEC there,
under key locks, tells whether a key has changed. EXEC then goes one of these ways
(``transaction_plan`` decides)::

    everything on the instance that is watched  one block there, on the watching connection
    ordinary commands on several instances      one block on each, all or nothing (commits)
    a command that spans instances itself       all of it on borrowed keys (borrowing)
    also PING, PUBLISH, SELECT, INFO            the same, and then the worker runs these
    CONFIG SET, FUNCTION LOAD before a write    the worker runs these, and then the same
    not more than one write                     the worker may run all in order, under locks
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from weakref import WeakValueDictionary

from threadis import _core, resp
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.base.offload import offload
from threadis.coordinator.base.reply import Reply
from threadis.coordinator.blocking.commands import BlockingCommands
from threadis.coordinator.instances import exec_replies, long_replies
from threadis.coordinator.instances.links import Kind, Link, LinkError
from threadis.coordinator.keys.locks import Lock
from threadis.coordinator.keys.waiters import ClientKey, client_key
from threadis.coordinator.keys.watched_keys import WatchedKeys
from threadis.coordinator.lua.script_call import ChangedError, ScriptCall
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.transaction_plan import (
    NOT_ONE_WRITE,
    Step,
    StepRoute,
    TransactionParts,
    TransactionPlan,
)
from threadis.coordinator.scripting.commands import ScriptCommands
from threadis.coordinator.sessions.busy import BusyScripts
from threadis.coordinator.transactions.planner import Planner
from threadis.coordinator.transactions.script_steps import ScriptSteps

CHANGED = resp.error("TRYAGAIN the rights of this client have changed; nothing was written")


class Transactions:
    """The clients' watches, and EXEC."""

    def __init__(
        self,
        execution: Execution,
        core: _core.Proxy,
        acl_checks: AclChecks,
        blocking: BlockingCommands,
        busy: BusyScripts,
        scripts: ScriptCommands,
    ) -> None:
        self._scripts, self._steps = scripts, ScriptSteps(scripts)
        self._planner = Planner(execution, acl_checks, self._steps, scripts.library)
        self._tracking = execution.tracking
        self._acl_checks = acl_checks
        self._busy = busy
        self._execution = execution
        self._blocking = blocking
        self._core = core
        self._watches: dict[ClientKey, WatchedKeys] = {}
        self._running: dict[ClientKey, AsyncExitStack] = {}
        # Clients whose worker runs what precedes a write.
        self._leading: dict[ClientKey, asyncio.Future[bool]] = {}
        # One operation at a time for a client, which may leave while its connections are asked.
        self._turns: WeakValueDictionary[ClientKey, asyncio.Lock] = WeakValueDictionary()

    @property
    def watches(self) -> Mapping[ClientKey, WatchedKeys]:
        """The clients that watch keys."""
        return self._watches

    def count(self) -> int:
        """Return how many clients watch keys."""
        return len(self._watches)

    def _turn(self, client: ClientKey) -> asyncio.Lock:
        return self._turns.setdefault(client, asyncio.Lock())

    async def watch(self, command: _core.Command) -> Reply:
        """WATCH key …"""
        async with self._turn(client_key(command)):
            return await self._watch(command, client_key(command))

    async def _watch(self, command: _core.Command, client: ClientKey) -> Reply:
        db, was_watching, reply = command.info.db, client in self._watches, b""
        if not was_watching:
            self._watches[client] = WatchedKeys(self._execution.links, Kind(resp=command.info.resp))
        watch = self._watches[client]
        by_owner: dict[int, list[bytes]] = defaultdict(list)
        for key in command.args[1:]:
            by_owner[self._execution.table.owner(db, key)].append(key)
        try:
            for index, keys in by_owner.items():
                if (reply := await watch.add(index, keys, db)) != resp.OK:
                    break
        except LinkError as error:
            reply = resp.error(str(error))
        if reply != resp.OK and not was_watching:
            await self._forget(client)
        return Reply(reply, watching=reply == resp.OK or was_watching)

    async def unwatch(self, command: _core.Command) -> Reply:
        """UNWATCH, and DISCARD of a client that watches."""
        async with self._turn(client_key(command)):
            await self._forget(client_key(command))
        return Reply(resp.OK, watching=False)

    async def _forget(self, client: ClientKey) -> None:
        """End a client's watches."""
        watch = self._watches.pop(client, None)
        if watch:
            await watch.end()

    async def gone(self, client: ClientKey) -> None:
        """Note that a client is gone."""
        if leading := self._leading.pop(client, None):
            leading.set_result(False)
        async with self._turn(client):
            await self._forget(client)
        await self.finished(client)

    async def exec(self, command: _core.Command) -> Reply | None:
        """EXEC; None if the worker will reply."""
        async with self._turn(client_key(command)):
            return await self._answer(command, client_key(command))

    async def refused(self, command: _core.Command, reply: bytes) -> Reply:
        """End the watches if something else has prevented EXEC."""
        async with self._turn(client_key(command)):
            await self._forget(client_key(command))
        return Reply(reply, watching=False)

    async def _answer(self, command: _core.Command, client: ClientKey) -> Reply | None:
        if refusal := await self._busy.refusal():
            await self._forget(client)
            return Reply(exec_replies.exec_abort(refusal), watching=False)
        if command.queued is None:
            await self._forget(client)
            return Reply(exec_replies.ABORTED, watching=False)
        try:
            reply = await self._exec_until_current(command, client)
        except RefusedError as error:
            reply = exec_replies.exec_abort(error.reply)
        finally:
            await self._forget(client)
        return None if reply is None else Reply(reply, watching=False)

    async def _exec_until_current(self, command: _core.Command, client: ClientKey) -> bytes | None:
        while True:
            with suppress(ChangedError):
                return await self._exec(command, client, self._watches.get(client))

    async def _exec(
        self, command: _core.Command, client: ClientKey, watch: WatchedKeys | None
    ) -> bytes | None:
        began, kind = time.monotonic(), Kind(resp=command.info.resp)
        queued = await self._planner.plan(command)
        if queued.is_plain and watch and (link := watch.only_link()):
            is_on_it = queued.instances <= {link.index} and watch.kind == kind
            if is_on_it and not self._tracking.has_noloop(command):
                return await self._exec_on_watching_link(command, queued, watch, link)
        if not queued.is_one_write:
            return await self._run_in_order(command, client, watch, queued)
        args = command.queued or []
        async with AsyncExitStack() as stack:
            lock = await stack.enter_async_context(await self._locked(queued, watch))
            if not self._scripts.are_current(queued.steps, command.info.user):
                raise ChangedError
            queued.loaded_scripts.check()
            if watch and not await watch.is_clean():
                return exec_replies.null_exec(command)
            await stack.enter_async_context(self._tracking.beginning(command, queued.tracked))
            if queued.write.start:
                self._execution.require_ready(self._execution.links.all_instances())
                if not await self._run_leading(command, client, queued, lock):
                    return None
            serve = self._scripts.feeding.after_write(stack, queued, lock)
            replies = await self._write_or_explain(command, queued, lock)
            if (
                replies is None and queued.write.start
            ):  # the worker has run the commands before the write already
                replies = [None if queued.may_run_in_order else NOT_ONE_WRITE] * len(queued.steps)
                changing = self._tracking.changing(command, queued.touched, queued.steps, once=True)
                await stack.enter_async_context(changing)
            if replies is not None:
                # Last: what was pushed may expire before all has run.
                stack.push_async_callback(serve)
                done = [reply for reply in replies if reply is not None]
                if len(done) == len(replies) and not queued.write.start:
                    return await long_replies.array(done)
                self._running[client] = stack.pop_all()
                took = int((time.monotonic() - began) * 1_000_000) // max(len(done), 1)
                left = slice(queued.write.start, None)
                self._core.run_queued(command, (args[left], 0), (replies[left], took), lock.token)
                return None
        # Some scripts cannot run on copies together.
        return await self._run_in_order(command, client, watch, queued)

    async def _run_leading(
        self, command: _core.Command, client: ClientKey, queued: TransactionPlan, lock: Lock
    ) -> bool:
        """Let the worker run what precedes the write; False if its client is gone."""
        args, count = command.queued or [], queued.write.start
        self._leading[client] = has_run = asyncio.get_running_loop().create_future()
        self._core.run_queued(command, (args[:count], len(args) - count), ([], 0), lock.token)
        return bool(await has_run)

    async def _write_or_explain(
        self, command: _core.Command, queued: TransactionPlan, lock: Lock
    ) -> list[bytes | None] | None:
        """As ``_write``; once EXEC's reply has begun, an error replaces each command's reply."""
        try:
            denied = await self._denied(command, queued)
            if queued.leaves_place(denied):
                raise RefusedError(CHANGED)
            return await self._write(command, queued, denied, lock)
        except (LinkError, RefusedError) as error:
            if not queued.write.start:
                raise
            reply = error.reply if isinstance(error, RefusedError) else resp.error(str(error))
            return [reply] * len(queued.steps)

    async def _exec_on_watching_link(
        self, command: _core.Command, queued: TransactionPlan, watch: WatchedKeys, link: Link
    ) -> bytes:
        """Run a transaction on the connection that watches its client's keys."""
        await link.select(queued.db)
        touched = [(db, key) for db, key, _ in queued.locks]
        # Not between the reads and the writes of a command on several instances.
        async with self._execution.locks.exclude_holders([*touched, *watch.keys]):
            queued.loaded_scripts.check()
            denied = await self._denied(command, queued)
            words = [step.parsed.args for at, step in enumerate(queued.steps) if at not in denied]
            reply = (await link.ask([b"MULTI"], *words, [b"EXEC"], wait=None))[-1]
            return await exec_replies.with_denials(reply, denied) if denied else reply

    async def _denied(self, command: _core.Command, queued: TransactionPlan) -> dict[int, bytes]:
        """Return the commands that are not run, because they are denied, or their script does not
        exist; note what the others read.
        """
        denied = {**queued.loaded_scripts.replies, **await self._acl_checks.denied_replies(command)}
        read = (step.read_keys for at, step in enumerate(queued.steps) if at not in denied)
        self._tracking.will_read(command, itertools.chain.from_iterable(read))
        return denied

    async def _locked(
        self, queued: TransactionPlan, watch: WatchedKeys | None
    ) -> AbstractAsyncContextManager[Lock]:
        """Return the lock under which a transaction is one write."""
        written = queued.written_keys
        await self._blocking.wait_for_lookups(written)
        if queued.needs_everything:
            return self._execution.locks.hold_everything()
        also = self._blocking.locks_for_serving(written)
        names = [*queued.locks, *(watch.locks() if watch else ()), *also]
        return self._execution.hold(names)

    async def _write(
        self, command: _core.Command, queued: TransactionPlan, denied: dict[int, bytes], lock: Lock
    ) -> list[bytes | None] | None:
        """Run everything on keys as one write; return the reply of each command, or None if it is
        still to run.

        None instead of a list if that is not possible as one: nothing was done then. LinkError,
        before anything has happened, if an instance is known not to be ready.
        """
        kind, db = Kind(resp=command.info.resp), queued.db
        replies = [denied.get(at) for at in range(len(queued.steps))]
        places = [
            at for at, step in enumerate(queued.steps) if step.is_written and at not in denied
        ]
        steps = [queued.steps[at] for at in places]
        is_heard = not self._tracking.has_noloop(command)
        events = self._execution.events
        messages = queued.messages(denied, always=events.has_subscribers())
        for message in messages:
            replies[message.place] = resp.integer(events.receivers(message))
        scripts = [at for at, step in zip(places, steps, strict=True) if step.script]
        async with AsyncExitStack() as stack:
            if queued.flushes:
                await stack.enter_async_context(self._tracking.flushing())
            keys = [key for _, key in queued.written_keys]
            changing = self._tracking.changing(command, keys, queued.steps)
            changes = await stack.enter_async_context(changing)
            recording = events.of_one_command(db, has_scripts=bool(scripts))
            mine = await stack.enter_async_context(recording)
            mine.places = places
            if scripts:
                await stack.enter_async_context(
                    self._scripts.attribution.in_order(command, scripts)
                )
                await stack.enter_async_context(self._scripts.reading(command, steps))
            if any(isinstance(step.script, ScriptCall) for step in steps):
                done = await self._scripts.run_all(steps, lock, db, kind)
                if done is None:
                    return None
                found, queued.written_keys = done
            else:
                found = await self._run(steps, places, lock, db, kind)
                queued.answered = dict(zip(places, found, strict=True))
            for message in messages:
                mine.publish(message)
            for at, reply in zip(places, found, strict=True):
                replies[at] = reply
            if not is_heard:
                for step in steps:
                    changes.gone += await self._execution.missing(step.parsed.keys, step.db)
        await self._steps.publish_loaded(steps)
        return replies

    async def _run(
        self, steps: list[Step], order: list[int], lock: Lock, db: int, kind: Kind
    ) -> list[bytes]:
        """Run steps as one write; ``order`` has their places in the transaction."""
        if not steps:
            return []
        if any(step.script for step in steps):
            return await self._run_scripts(steps, order, lock, db, kind)
        if any(step.route is StepRoute.BORROWED for step in steps):
            return await self._execution.borrow([step.piece for step in steps], db, kind, lock)
        parts = await offload(len(steps), TransactionParts, steps, order, db)
        needs_memory = any(step.parsed.row.needs_memory for step in steps)
        found = await self._execution.commit(
            dict(parts.parts), lock, db, kind, needs_memory=needs_memory, steps=parts.order
        )
        return parts.replies(found)

    async def _run_scripts(
        self, steps: list[Step], order: list[int], lock: Lock, db: int, kind: Kind
    ) -> list[bytes]:
        """Run steps with scripts among them, each on the instance of its keys."""
        parts = TransactionParts(steps, order, db)
        async with AsyncExitStack() as stack:
            for index in {index for index, _ in parts.scripts}:
                await stack.enter_async_context(self._busy.watch(index))
            found = await self._execution.commit(
                dict(parts.parts), lock, db, kind, steps=parts.order, scripts=parts.scripts
            )
        for (index, at), script in parts.scripts.items():
            found[index][at] = await self._scripts.reply(script, index)
        return parts.replies(found)

    async def _run_in_order(
        self,
        command: _core.Command,
        client: ClientKey,
        watch: WatchedKeys | None,
        queued: TransactionPlan,
    ) -> bytes | None:
        """Let the worker run the commands one after the other, under the locks.

        RefusedError if that could be half a write. LinkError, before anything has happened, if an
        instance is known not to be ready.
        """
        if not queued.may_run_in_order:
            raise RefusedError(queued.obstacle or NOT_ONE_WRITE)
        needed: Collection[int] = self._execution.links.all_instances()
        async with AsyncExitStack() as stack:
            if queued.needs_everything:
                lock = await stack.enter_async_context(self._execution.locks.hold_everything())
            else:
                needed = queued.instances
                names = [*queued.locks, *(watch.locks() if watch else ())]
                lock = await stack.enter_async_context(self._execution.hold(names))
            if watch and not await watch.is_clean():
                return exec_replies.null_exec(command)
            self._execution.require_ready(needed)
            self._scripts.feeding.after_commands(stack, queued, lock)
            await stack.enter_async_context(self._tracking.beginning(command, queued.tracked))
            changing = self._tracking.changing(command, queued.touched, queued.steps, once=True)
            await stack.enter_async_context(changing)
            self._running[client] = stack.pop_all()
            self._core.run_queued(command, (command.queued or [], 0), ([], 0), lock.token)
            return None

    async def finished(self, client: ClientKey) -> None:
        """Note that a worker has run what it was given."""
        if leading := self._leading.pop(client, None):
            leading.set_result(True)
            return
        stack = self._running.pop(client, None)
        if stack:
            await stack.aclose()

"""Runs scripts on copies of their keys, lent by several instances, until they need no others.

A run that has touched other keys does not count: it is repeated with copies of these, too
(``copy_run``, ``script_trial``).
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from threadis.coordinator.base import garbage
from threadis.coordinator.base.command_table import KeyAccess
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances.links import Kind
from threadis.coordinator.instances.script_monitor import ScriptMonitor
from threadis.coordinator.keys.colocation import Group, is_plain
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.locks import Key, Lock
from threadis.coordinator.lua.acl_check import ACL_CHECK_CMD
from threadis.coordinator.lua.profile import ScriptProfile
from threadis.coordinator.lua.sandbox import ScriptSandbox
from threadis.coordinator.lua.sandbox_user import (
    KEY_LISTING,
    NOT_ALL_DECLARED,
    OTHER_DATABASES,
    RERUNS,
    TOO_MANY,
    TOO_MANY_TO_LIST,
    one_instance_error,
)
from threadis.coordinator.lua.script_call import ScriptCall
from threadis.coordinator.multikey.copies import CopyStep
from threadis.coordinator.multikey.copy_run import CopyRun
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.script_trial import ScriptTrial
from threadis.coordinator.scripting.feeding import FedClients, ScriptFeeding
from threadis.coordinator.scripting.in_place import InPlace
from threadis.coordinator.sessions.busy import BusyScripts

RANDOM_KEY = b"randomkey"


class OnCopies:
    """Runs scripts on copies."""

    def __init__(
        self,
        execution: Execution,
        busy: BusyScripts,
        sandbox: ScriptSandbox,
        script_monitor: ScriptMonitor,
        in_place: InPlace,
        feeding: ScriptFeeding,
    ) -> None:
        self._feeding = feeding
        self._execution, self._busy, self._sandbox = execution, busy, sandbox
        self._script_monitor, self._in_place = script_monitor, in_place
        self._links, self._table = execution.links, execution.table

    async def run(self, call: ScriptCall, profile: ScriptProfile) -> bytes:
        """Run one script until no undeclared key is missing, then write what has changed."""
        return await self._run(call, profile, lists=False) or TOO_MANY_TO_LIST

    async def _run(self, call: ScriptCall, profile: ScriptProfile, *, lists: bool) -> bytes | None:
        """The same; if it ``lists`` keys it is lent all: None if these are too many."""
        denied = [name for name in self._in_place.effects if not lists or name not in KEY_LISTING]
        trial = self._trial([call], denied, with_other_commands=False)
        if trial.misanswered:
            return await self._refuse(call, profile, trial.misanswered, lists=lists)
        parsed = self._table.parse(call.words)
        keys = [KeyAccess(key, reads=True, writes=call.writes) for key in call.keys]
        piece = CopyStep(replace(parsed, keys=keys), call.db, call)
        together = CopyRun(self._execution, [piece], call.db, call.kind, trial)
        if lists and not await together.lend_all():
            return None
        replies = await self._repeat(together, trial, {call.name: profile})
        if replies is not None:
            return replies[0]
        refused = trial.refused
        if alone := refused & set(self._in_place.alone(call.db)):
            keys_of_it = together.keys(call.db)
            return await self._refuse(call, profile, alone, lists=lists, keys=keys_of_it)
        return await self._refuse(call, profile, refused, lists=True)

    async def run_all(
        self,
        pieces: Sequence[CopyStep],
        profiles: Mapping[bytes, ScriptProfile],
        lock: Lock,
        db: int,
        kind: Kind,
    ) -> tuple[list[bytes], list[Place]] | None:
        """Run scripts and commands of one client as one; return their replies, and what has
        changed.

        ``profiles`` are those of the scripts, by name. The caller holds the lock on everything.
        None if that is not possible: nothing was done then.
        """
        calls = [piece.call for piece in pieces if piece.call]
        trial = self._trial(calls, self._in_place.effects, with_other_commands=len(pieces) > 1)
        if trial.misanswered:
            return None
        together = CopyRun(self._execution, pieces, db, kind, trial)
        replies = await self._repeat(together, trial, profiles, lock)
        return None if replies is None else (replies, together.changed)

    def _trial(
        self, calls: Sequence[ScriptCall], denied: Sequence[bytes], *, with_other_commands: bool
    ) -> ScriptTrial:
        tools = (self._execution, self._busy, self._sandbox, self._script_monitor)
        return ScriptTrial(*tools, calls, denied, with_other_commands=with_other_commands)

    async def _repeat(
        self,
        together: CopyRun,
        trial: ScriptTrial,
        profiles: Mapping[bytes, ScriptProfile],
        lock: Lock | None = None,
    ) -> list[bytes] | None:
        """Repeat until nothing is missing; return the replies, or None if scripts were refused what
        they may not do. Without a lock there is one script, which locks what it needs.
        """
        local: dict[bytes, list[Group]] = {name: [] for name in profiles}
        for call in trial.calls:
            local[call.name] += self._in_place.groups(call)
        for call in trial.calls:
            together.lend(profiles[call.name].guesses(local[call.name]), call.db)
        size = 0
        for _ in range(RERUNS):
            async with AsyncExitStack() as stack, AsyncExitStack() as recording:
                stack.enter_context(garbage.collect_seldom(size))
                held, fed = lock, None
                if held is None:
                    held, fed = await self._begin(stack, call, together, trial)
                    mine = self._execution.events.of_one_command(call.db, has_scripts=True)
                    await recording.enter_async_context(mine)
                replies = await together.attempt(held)
                if replies is not None:
                    client = trial.calls[0].info.place
                    self._execution.tracking.unchanged(client, together.unchanged)
                    if fed and call.ending:
                        stack.push_async_callback(fed.serve_these, together.changed)
                        call.ending.push_async_exit(stack.pop_all())
                    return replies
            size += sum(map(len, together.missing.values()))
            if new := {key for keys in together.missing.values() for key in keys}:
                trial.monitors = True
                for name, profile in profiles.items():
                    profile.touched(new, local[name])
            else:
                lists = held.everything and not trial.refused.isdisjoint(KEY_LISTING)
                if not trial.allow(lists=lists and await together.lend_all()):
                    return None
        raise RefusedError(TOO_MANY)

    async def _begin(
        self, stack: AsyncExitStack, call: ScriptCall, together: CopyRun, trial: ScriptTrial
    ) -> tuple[Lock, FedClients | None]:
        """Lock the keys of a run, and what its waiting clients need besides."""
        keys = together.keys(call.db)
        names = await offload(len(keys), _names, call, keys)
        await self._feeding.wait_for_lookups(call, keys)
        waited = self._feeding.waited(call, keys) if call.ending else []
        also = self._feeding.locks_for_serving(waited)
        lock = await stack.enter_async_context(self._execution.hold([*names, *also], call.within))
        if waited := self._feeding.waited(call, keys) if call.ending else []:
            trial.monitors = trial.monitors or len(waited) > 1
        return lock, self._feeding.begin(stack, waited, lock) if waited else None

    async def _refuse(
        self,
        call: ScriptCall,
        profile: ScriptProfile,
        commands: Collection[bytes],
        *,
        lists: bool,
        keys: Sequence[bytes] = (),
    ) -> bytes:
        """Refuse commands that cannot run on copies; some can if all keys are lent."""
        if set(commands) <= set(OTHER_DATABASES):
            return NOT_ALL_DECLARED
        if lists or not set(commands) <= set(KEY_LISTING):
            return one_instance_error(commands)
        reply = await self._of_all(call, profile)
        if reply is None and set(commands) == {RANDOM_KEY} and ACL_CHECK_CMD not in call.body:
            reply = await self._anywhere(call, keys)
        return reply or TOO_MANY_TO_LIST

    async def _of_all(self, call: ScriptCall, profile: ScriptProfile) -> bytes | None:
        """Run on copies of all keys of the database, where it may list them; None if these are too
        many.
        """
        async with (
            self._execution.locks.hold_everything(call.within) as lock,
            AsyncExitStack() as ending,  # ends with this lock
        ):
            there = replace(call, within=lock.token, ending=ending if call.ending else None)
            return await self._run(there, profile, lists=True)

    async def _anywhere(self, call: ScriptCall, keys: Sequence[bytes]) -> bytes | None:
        """Run where RANDOMKEY may answer for all instances: where the keys are, or anywhere.

        Any key of an instance is a valid answer; but "no key" must be true of all instances. It may
        only read, because missing keys could not be lent.
        """
        sizes = await self._links.call_all(b"DBSIZE", db=call.db)
        owners = {self._table.owner(call.db, key) for key in keys}
        candidates = [i for i, size in enumerate(sizes) if size or not any(sizes)]
        possible = [index for index in candidates if owners <= {index}]
        trial = replace(call, keys=list(keys))
        can_name = self._in_place.can_name(trial) and all(map(is_plain, keys))
        if not possible or not can_name:
            return None
        weights = [max(sizes[index], 1) for index in possible]
        index = random.choices(possible, weights)[0]  # noqa: S311 - as random as RANDOMKEY
        denied = [name for name in self._in_place.alone(call.db) if name != RANDOM_KEY]
        reply, refusals = await self._in_place.run(trial, index, denied, only_reads=True)
        return reply if not refusals else None


def _names(call: ScriptCall, keys: Iterable[bytes]) -> list[Key]:
    """Return the locks of a script's keys."""
    return [(call.db, key, call.writes) for key in keys]

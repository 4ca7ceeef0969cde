"""Runs a script on the real keys, as a sandbox user that may touch no others."""

import math
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from threadis import own_names, resp
from threadis.coordinator.instances import fenced
from threadis.coordinator.instances.links import LinkError, UnknownOutcomeError
from threadis.coordinator.keys.colocation import ALL_KEYS, Group, is_plain
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.lua.acl_check import AclCheckUse
from threadis.coordinator.lua.analysis import may_select
from threadis.coordinator.lua.library import Library
from threadis.coordinator.lua.profile import ScriptProfile
from threadis.coordinator.lua.sandbox import SandboxedScript, ScriptSandbox
from threadis.coordinator.lua.sandbox_user import (
    INSTANCE_INFO,
    NOT_MONITORED,
    OTHER_DATABASES,
    PUBLISHING,
    REFUSED_MIDWAY,
    WHOLE_KEYSPACE,
    Refusals,
    SandboxRules,
    one_instance_error,
    sandbox_user_of,
)
from threadis.coordinator.lua.script_call import ChangedError, ScriptCall
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.transaction_plan import Step, StepRoute
from threadis.coordinator.scripting.feeding import FedClients, ScriptFeeding
from threadis.coordinator.sessions.busy import BusyScripts

NAMES_MOST = 1000  # patterns: servers compare each of them with each key that is touched


class InPlace:
    """Runs scripts on the real keys of one instance."""

    def __init__(
        self,
        execution: Execution,
        library: Library,
        busy: BusyScripts,
        sandbox: ScriptSandbox,
        feeding: ScriptFeeding,
    ) -> None:
        self._library, self._feeding = library, feeding
        self._execution, self._busy, self._sandbox = execution, busy, sandbox
        self._links = execution.links
        self._databases = range(execution.borrowing.databases)
        profile = {row.name for row in execution.table.rows()}
        self._telling = tuple(name.encode() for name in sorted(INSTANCE_INFO & profile))
        # What a script may not do while it may have to be run again
        self.effects = (
            *WHOLE_KEYSPACE,
            *self._telling,
            *OTHER_DATABASES,
            *PUBLISHING,
            *NOT_MONITORED,
        )

    async def run(
        self,
        call: ScriptCall,
        index: int,
        denied: Collection[bytes] | None = None,
        *,
        only_reads: bool = False,
        can_be_undone: bool = False,
        keeps_to_keys: bool = False,
    ) -> tuple[bytes, Refusals]:
        """Run at an instance; return the reply, and what the sandbox user was refused.

        A script that ``keeps_to_keys`` provably touches no others.
        """
        async with AsyncExitStack() as stack:
            fed = await self._begin(stack, call, keeps_to_keys=keeps_to_keys)
            allowed = self._allowed(call, denied, only_reads=only_reads)
            reply, refusals = await self._run(call, index, allowed, can_be_undone=can_be_undone)
            if fed and not refusals.all:
                stack.push_async_callback(fed.serve)
                if call.ending and not refusals:  # otherwise it may be run in another way
                    call.ending.push_async_exit(stack.pop_all())
            return reply, refusals

    async def _begin(
        self, stack: AsyncExitStack, call: ScriptCall, *, keeps_to_keys: bool
    ) -> FedClients | None:
        """Lock what a script may touch; exclusively, if clients wait for it."""
        if call.ending is None:
            locks = self._execution.locks
            await stack.enter_async_context(locks.exclude_holders(self.places(call), call.within))
            return None
        await self._feeding.wait_for_lookups(call, call.keys)
        while True:
            waited = self._may_feed(call, keeps_to_keys=keeps_to_keys)
            locking = self._feeding.lock(self.places(call), waited, call.within)
            lock = await stack.enter_async_context(locking)
            if set(waited).issuperset(self._may_feed(call, keeps_to_keys=keeps_to_keys)):
                break
            await stack.aclose()  # meanwhile a client waits for more
        return self._feeding.record_changes(stack, waited, lock)

    def _may_feed(self, call: ScriptCall, *, keeps_to_keys: bool) -> list[Place]:
        """Return what a script may feed and clients wait for."""
        local, others = self._names(call)
        if keeps_to_keys or others is None:
            local = [] if keeps_to_keys else [ALL_KEYS]
        return self._feeding.waited(call, call.keys, local, self._databases_of(call))

    async def _run(
        self, call: ScriptCall, index: int, allowed: SandboxRules, *, can_be_undone: bool
    ) -> tuple[bytes, Refusals]:
        async with self._links.lease(index, call.kind, call.db) as link:
            if call.generation not in (None, self._library.generation):
                raise ChangedError
            sandbox_user = sandbox_user_of(link)
            script = self._sandbox.wrap(call, allowed, sandbox_user, can_be_undone=can_be_undone)
            async with self._busy.watch(index) as was_killed:
                answers = await fenced.ask(link, script.fence, only_as_block=can_be_undone)
            if answers.refusal is not None:  # for instance, another script runs there
                sandbox_user.abandon()
                return answers.refusal, Refusals(all=True)
            script.answers = answers
            refusals, reply = await self._sandbox.judge(script, link)
            is_killed = was_killed(reply)
            self._sandbox.settle(script, index, counts=is_killed or not refusals)
            if is_killed:
                raise RefusedError(reply)
            refusals.alone = refusals.commands & set(self.alone(call.db))
            return one_instance_error(refusals.alone) if refusals.alone else reply, refusals

    def places(self, call: ScriptCall) -> list[tuple[int, bytes]]:
        """Return the locks of a script."""
        local, _ = self._names(call)
        names = [*call.keys, *(own_names.GROUP_LOCK + group.prefix for group in local)]
        return [(db, name) for db in self._databases_of(call) for name in names]

    def _databases_of(self, call: ScriptCall) -> Sequence[int]:
        # A proved script may use another database, where its keys are on the same instance.
        return self._databases if may_select(call.body) else [call.db]

    def step(self, step: Step, call: ScriptCall, *, keeps_to_keys: bool) -> Step:
        """Make a script part of a block at the instance of its keys."""
        places = [*self.places(call), *self._may_feed(call, keeps_to_keys=keeps_to_keys)]
        return replace(
            step,
            route=StepRoute.ONE_INSTANCE,
            script=self._sandbox.wrap(call, self._allowed(call)),
            names=[(db, name, True) for db, name in dict.fromkeys(places)],
            owners={self.home(call, call.keys)},
        )

    async def reply(self, script: SandboxedScript, index: int) -> bytes:
        """Return the reply of a script in such a block."""
        name, before = script.sandbox_user.name, script.answers.before
        if before[-1] == resp.OK and name not in script.answers.after[-1]:  # nothing was refused
            self._sandbox.settle(script, index, counts=True)
            return script.answers.reply
        try:
            async with self._links.lease(index) as link:
                refusals, reply = await self._sandbox.judge(script, link)
        except LinkError as error:
            raise UnknownOutcomeError(
                f"ERR instance {index} was lost; all commands have run"
            ) from error
        self._sandbox.settle(script, index, counts=not refusals)
        if alone := refusals.commands & set(self.alone(script.call.db)):
            return one_instance_error(alone)
        return REFUSED_MIDWAY if refusals else reply

    def _allowed(
        self, call: ScriptCall, denied: Collection[bytes] | None = None, *, only_reads: bool = False
    ) -> SandboxRules:
        denied = self.alone(call.db) if denied is None else denied
        if asking := AclCheckUse.of(call):
            denied = asking.may_run(denied)
        local, others = self._names(call)
        return SandboxRules(others, denied, local, only_reads=only_reads)

    def alone(self, db: int) -> Collection[bytes]:
        """Return what no script may run, because it would see only one instance."""
        colocation = self._execution.colocation
        if colocation.pinned_instance(db) is not None:
            return (*self._telling, *OTHER_DATABASES, b"flushall", b"swapdb")
        alone = (*self._telling, *WHOLE_KEYSPACE)
        return (*alone, *OTHER_DATABASES) if colocation.has_pins else alone

    def has_all(self, db: int) -> bool:
        """Whether all keys of a database are on one instance."""
        return self._links.count == 1 or self._execution.colocation.pinned_instance(db) is not None

    def can_name(self, call: ScriptCall) -> bool:
        """Whether a sandbox user can have patterns for all that a script may touch, and stays
        quick.
        """
        if len(call.keys) <= NAMES_MOST:
            return True
        local, others = self._names(call, NAMES_MOST)
        return len(local) + len(others or ()) <= NAMES_MOST

    def _names(
        self, call: ScriptCall, most: float = math.inf
    ) -> tuple[list[Group], Collection[bytes] | None]:
        """Return what a sandbox user may touch: groups, and keys outside of them (None: all keys).

        At most ``most`` of them.
        """
        if self.has_all(call.db):
            return ([] if call.rights else [ALL_KEYS]), None
        if call.rights:
            return [], call.keys
        groups: dict[Group, None] = {}
        others: dict[bytes, None] = {}
        for key in call.keys:
            group = self._execution.colocation.group(call.db, key)
            if group and _is_exact(group):
                groups[group] = None
            else:
                others[key] = None
            if len(groups) + len(others) > most:
                break
        return list(groups), others.keys()

    def home(self, call: ScriptCall, keys: Sequence[bytes]) -> int:
        """Choose the instance for a script with these keys."""
        if keys:
            return self._execution.table.owner(call.db, keys[0])
        pinned = self._execution.colocation.pinned_instance(call.db)
        return self._links.any_ready() if pinned is None else pinned

    def placement_keys(self, call: ScriptCall, profile: ScriptProfile) -> list[bytes]:
        """Return the keys that decide where a script runs: its own; if it declares none, those of
        earlier runs, if all are on one instance.
        """
        if call.keys:
            return call.keys
        keys = list(filter(is_plain, profile.guesses(self.groups(call))))
        return keys if len(set(self._execution.table.owners_by_name(call.db, keys))) == 1 else []

    def groups(self, call: ScriptCall) -> list[Group]:
        """Return the groups that live where its keys do, if these are on one instance.

        A restricted user's script gets exact keys only.
        """
        return self._names(call)[0]


def _is_exact(group: Group) -> bool:
    """Whether a group's pattern matches no other keys."""
    return all(map(is_plain, (group.prefix, *group.tail)))

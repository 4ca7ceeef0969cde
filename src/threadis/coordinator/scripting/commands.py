"""EVAL, EVALSHA, FCALL and their read-only forms.

A script happens whole or not at all, so it runs in one of two ways::

    in place    on the instance of all its keys, if it certainly cannot touch others: that was
                proved by analysis, or all keys of its database live there; or if it only reads,
                and can be run again
    on copies   of its keys, borrowed from their instances; what it touched without declaring it is
                borrowed as well, and the script is run again from a clean state

That a script has kept to its keys so far proves nothing. Every script is fenced (``fenced``), so
one that forges replies forges only its own client's.

Scripts that provably keep to their keys are run by the workers (``rust/src/commands/scripts.rs``),
unless something is special about the client or the moment.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace

from threadis import _core
from threadis.coordinator.acl.users import Users
from threadis.coordinator.base.command_table import KeyAccess
from threadis.coordinator.blocking.commands import BlockingCommands
from threadis.coordinator.instances import fenced
from threadis.coordinator.instances.links import Kind, Words
from threadis.coordinator.instances.script_monitor import ScriptMonitor
from threadis.coordinator.keys.colocation import is_plain
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.locks import Lock
from threadis.coordinator.lua.acl_check import ACL_CHECK_CMD, AclCheckUse
from threadis.coordinator.lua.analysis import Reach, names_commands, script_reach
from threadis.coordinator.lua.attribution import Attribution
from threadis.coordinator.lua.functions import as_script
from threadis.coordinator.lua.library import NO_WRITES, Library, flags
from threadis.coordinator.lua.profile import ScriptProfile, UndoableRuns
from threadis.coordinator.lua.sandbox import SandboxedScript, ScriptSandbox
from threadis.coordinator.lua.sandbox_user import OTHER_DATABASES, REFUSED_MIDWAY
from threadis.coordinator.lua.script_call import ChangedError, ScriptCall, declared_keys, sha1
from threadis.coordinator.lua.sort_patterns import reads_other_keys
from threadis.coordinator.lua.transaction_scripts import EVALS, TransactionScripts
from threadis.coordinator.lua.worker_scripts import WorkerScripts
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.multikey.transaction_plan import Step
from threadis.coordinator.scripting.feeding import ScriptFeeding
from threadis.coordinator.scripting.in_place import InPlace
from threadis.coordinator.scripting.on_copies import OnCopies
from threadis.coordinator.scripting.undo import (
    UNDONE,
    UndoWrapper,
    is_undoable,
    without_shebang,
)
from threadis.coordinator.sessions.busy import BusyScripts
from threadis.coordinator.sessions.tracked_changes import TrackedChange

PROFILES_LIMIT = 10_000  # profiles that are kept
TRIES = 100  # runs in place that only read, each with more keys
QUOTES = (b"'", b'"')
# Lua limits names and depth: the code in front of a script may exceed that.
COMPILES = b"return loadstring(ARGV[1]) and 1 or 0"
YES, NO = b":1\r\n", b":0\r\n"
NO_COPIES = (b"-OOM", b"-NOREPLICAS", b"-MISCONF")


class ScriptCommands:
    """Runs scripts and functions."""

    def __init__(
        self,
        execution: Execution,
        library: Library,
        busy: BusyScripts,
        users: Users,
        attribution: Attribution,
        worker_scripts: WorkerScripts,
        blocking: BlockingCommands,
    ) -> None:
        self.attribution = attribution
        self._undo = UndoWrapper(execution.table.rows())
        self._worker_scripts = worker_scripts
        self._tracking = execution.tracking
        self._script_monitor = ScriptMonitor(execution.links, execution.table)
        self._users = users
        self._execution = execution
        self.links = execution.links
        self._table = execution.table
        self.library = library
        self._profiles: OrderedDict[bytes, ScriptProfile] = OrderedDict()
        sandbox, feeding = (
            ScriptSandbox(execution.links, users, attribution),
            ScriptFeeding(execution, blocking),
        )
        self.feeding = feeding
        self.in_place = InPlace(execution, library, busy, sandbox, feeding)
        effects = self.in_place.effects  # but an undoable script publishes at its end
        self._undoable = tuple(name for name in effects if name != b"publish")
        self._on_copies = OnCopies(
            execution, busy, sandbox, self._script_monitor, self.in_place, feeding
        )

    async def run(self, command: _core.Command) -> bytes:
        """Run EVAL, EVALSHA, FCALL …"""
        args, info = command.args, command.info
        keys = declared_keys(args)
        kind = Kind(resp=info.resp)
        if keys is None:
            # The number of keys is wrong: any server returns the error before it runs the script.
            index = self.links.any_ready()
            async with self.links.lease(index, kind, info.db) as link:
                return (await fenced.ask(link, fenced.Fence(args))).reply
        if args[0].lower() in EVALS:
            await self.library.prepare(sha1(args[1]), args[1])
        call = await self.call(args, keys, info.db, command, TransactionScripts(self.library))
        if call is None:
            return await self.library.no_script()
        try:
            async with AsyncExitStack() as ending, AsyncExitStack() as stack:
                changes = TrackedChange()
                if command.token is None:
                    call = replace(call, ending=ending)
                    if call.writes and self._tracking.has_noloop(command):
                        everything = self._execution.locks.hold_everything()
                        lock = await ending.enter_async_context(everything)
                        call = replace(call, within=lock.token)
                    changing = self._tracking.changing(command, keys)
                    changes = await stack.enter_async_context(changing)
                # What it has not read is forgotten before invalidations are sent.
                reading = self._tracking.reading(command, keys, self._script_monitor)
                await stack.enter_async_context(reading)
                reply = await self._run(call)
                self.tell(call)
                if call.within != command.token:  # no other client may change its keys
                    wrote = [KeyAccess(key, reads=False, writes=True) for key in keys]
                    changes.gone += await self._execution.missing(wrote, call.db)
                return reply
        except ChangedError:
            return await self.run(command)
        except RefusedError as error:
            return error.reply

    async def call(
        self,
        words: Words,
        keys: list[bytes],
        db: int,
        command: _core.Command,
        loaded_scripts: TransactionScripts,
    ) -> ScriptCall | None:
        """Build the call of a script from its arguments; None if the script does not exist."""
        family, name, info = words[0].lower(), words[1], command.info
        current = self.library.generation
        is_function = family.startswith(b"fcall")
        body: bytes | None = words[1]
        if is_function:  # another library may have a function of this name later
            name = b"%d:%s" % (current, name)
            body = await self.library.code(words[1])
        elif family in EVALS:
            name = sha1(words[1])
        else:
            name = name.lower()
            body = await loaded_scripts.find(name)
        if body is None:
            return None
        return ScriptCall(
            name,
            list(words),
            keys,
            db,
            Kind(resp=info.resp),
            not family.endswith(b"_ro"),
            command.token,
            self._users.rights(info.user),
            info,
            body,
            current if is_function else None,
        )

    def tell(self, call: ScriptCall) -> None:
        """Let workers run a script from now on, if they may."""
        if not call.is_function:
            self._worker_scripts.tell(call.name, self.library.body(call.name), self.reach(call))

    def are_current(self, steps: Iterable[Step], user: bytes) -> bool:
        """Whether the plan of a transaction's scripts still fits the user's rights and the
        functions.
        """
        scripts = [step.script for step in steps if step.script is not None]
        calls = [one.call if isinstance(one, SandboxedScript) else one for one in scripts]
        generations = (None, self.library.generation)
        rights = self._users.rights(user) if calls else None
        return all(call.rights == rights and call.generation in generations for call in calls)

    async def reply(self, script: SandboxedScript, index: int) -> bytes:
        """Return the reply of a script that was part of a transaction."""
        return await self.in_place.reply(script, index)

    async def run_all(
        self, steps: Sequence[Step], lock: Lock, db: int, kind: Kind
    ) -> tuple[list[bytes], list[Place]] | None:
        """Run commands and scripts on copies as one; see ``OnCopies.run_all``."""
        pieces = [step.piece for step in steps]
        names = {piece.call.name for piece in pieces if piece.call}
        profiles = {name: self._profile(name) for name in names}
        return await self._on_copies.run_all(pieces, profiles, lock, db, kind)

    def reading(
        self, command: _core.Command, steps: Iterable[Step]
    ) -> AbstractAsyncContextManager[None]:
        """Remember what the scripts of a transaction read, if its client tracks."""
        keys = [
            access.key for step in steps if step.script is not None for access in step.parsed.keys
        ]
        return self._tracking.reading(command, keys, self._script_monitor)

    def reach(self, call: ScriptCall) -> Reach:
        """Return what a script can touch; if its text is unknown, anything."""
        profile = self._profile(call.name)
        if reads_other_keys(call):
            return Reach.ANYTHING
        if not call.body or (call.is_function and not call.keys):  # without keys it takes no locks
            return Reach.ANYTHING
        if profile.reach is None:
            databases = self._execution.borrowing.databases
            if self._execution.colocation.has_pins:
                databases = 0
            body = as_script(call.body, call.words[1]) if call.is_function else call.body
            profile.reach = script_reach(body, self._table.look_up, databases)
        return profile.reach

    def _keeps_to_instance(self, call: ScriptCall) -> bool:
        """Whether a script can touch only what lives on the instance of its keys."""
        found = self.reach(call)
        if found is Reach.DECLARED:
            return True
        if found is Reach.PREFIXED and call.keys and not call.rights:
            colocation = self._execution.colocation
            groups = [colocation.group(call.db, key) for key in call.keys]
            return all(group is not None and group.is_open() for group in groups)
        if not self.in_place.has_all(call.db) or not names_commands(call.body):
            return False
        asking = AclCheckUse.of(call)
        if asking and asking.may_ask(asking.may_run(self.in_place.alone(call.db))):
            return False
        text = call.body.lower()  # commands that would be refused midway
        refused = (*self.in_place.alone(call.db), *OTHER_DATABASES)
        families = {name.partition(b"|")[0] for name in refused}
        return not any(quote + name + quote in text for name in families for quote in QUOTES)

    def runs_in_place(self, call: ScriptCall) -> bool:
        """Whether a script can run on the instance of its keys, as a sandbox user."""
        owners = set(self._table.owners_by_name(call.db, call.keys))
        return len(owners) <= 1 and self.in_place.can_name(call) and self._keeps_to_instance(call)

    async def _run(self, call: ScriptCall) -> bytes:
        profile = self._profile(call.name)
        if reads_other_keys(call) and not self.in_place.has_all(call.db):
            return await self._on_copies.run(call, profile)
        owners = set(self._table.owners_by_name(call.db, call.keys))
        is_named = self.in_place.can_name(call)
        if self.runs_in_place(call):
            index = self.in_place.home(call, call.keys)
            keeps = self.reach(call) is Reach.DECLARED
            return (await self.in_place.run(call, index, keeps_to_keys=keeps))[0]
        if is_named and len(owners) <= 1 and self._only_reads(call) and not profile.strays:
            # It can be run again, whatever it has touched.
            index = self.in_place.home(call, call.keys)
            reply, refusals = await self.in_place.run(call, index, self.in_place.effects)
            if not refusals:
                return reply
            profile.strays = True
        tries = profile.on_one_instance if len(owners) == 1 else profile.on_several
        marks = self.in_place.placement_keys(call, profile)
        if is_named and marks and not tries.is_too_often_undone() and self._may_try(call, profile):
            reply_if_done = await self._try(call, tries, marks)
            if reply_if_done is not None:
                return reply_if_done
        try:
            return await self._on_copies.run(call, profile)
        except RefusedError as error:
            if not error.reply.startswith(NO_COPIES):
                raise
            reply_of_reads = await self._without_copies(call, profile)
            return error.reply if reply_of_reads is None else reply_of_reads

    def _only_reads(self, call: ScriptCall) -> bool:
        """Whether a script writes nothing, and what it touches can be seen in place."""
        if ACL_CHECK_CMD in call.body or not all(map(is_plain, call.keys)):
            return False
        return not call.writes or (
            call.words[0].lower().startswith(b"eval") and (NO_WRITES in flags(call.body))
        )

    def _may_try(self, call: ScriptCall, profile: ScriptProfile) -> bool:
        """Whether to run a script in place so that it can be undone."""
        if not call.writes or call.rights or not all(map(is_plain, call.keys)):
            return False
        if self.in_place.has_all(call.db):
            return False  # its guard is refused no key, not even the one that tells of an undoing
        # What was undone would be visible, too.
        if (
            self._execution.events.are_enabled
            or self._tracking.is_on
            or self.attribution.are_watched
        ):
            return False
        if profile.can_be_undone is None:
            if not call.body or call.is_function:
                return False
            profile.can_be_undone = is_undoable(call.body)
        return profile.can_be_undone and bool(call.body)

    async def _try(self, call: ScriptCall, tries: UndoableRuns, marks: list[bytes]) -> bytes | None:
        """Run in place, undoably; None if it had to be undone, or was not run.

        If its keys are on several instances it may touch those that live with the first one: what
        others declare as keys may be numbers.
        """
        index = self.in_place.home(call, marks)
        keys = [key for key in marks if self._table.owner(call.db, key) == index]
        is_apart = keys != call.keys
        script = self._undo.wrap(call.body, is_apart=is_apart)
        if tries.compiles is None:
            answer = (
                await self.links.raw(index, [[b"EVAL", COMPILES, b"0", without_shebang(script)]])
            )[0]
            tries.compiles = {YES: True, NO: False}.get(answer)
        if not tries.compiles:
            return None
        # Servers check the rights of KEYS; on several instances keys are passed in ARGV instead.
        head = [b"EVAL", script, b"0"] if is_apart else [b"EVAL", script]
        trial = replace(call, keys=keys, words=[*head, *call.words[2:]])
        reply, refusals = await self.in_place.run(trial, index, self._undoable, can_be_undone=True)
        if refusals.all:
            return None
        tries.count += 1
        if UNDONE in refusals.keys:
            tries.undone += 1
            return None
        if refusals:
            return REFUSED_MIDWAY
        return reply.replace(sha1(script), call.name) if reply.startswith(b"-") else reply

    async def _without_copies(self, call: ScriptCall, profile: ScriptProfile) -> bytes | None:
        """Run where no copies can be made; None if its keys are on several instances.

        It may only read: so it can be run again, with more keys; but not if it asks for its rights.
        """
        if ACL_CHECK_CMD in call.body:
            return None
        groups = self.in_place.groups(call)
        keys = list(dict.fromkeys([*call.keys, *profile.guesses(groups)]))
        for _ in range(TRIES):
            owners = {self._table.owner(call.db, key) for key in keys}
            if len(owners) > 1 or not all(map(is_plain, keys)):
                return None
            index = self.in_place.home(call, keys)
            trial = replace(call, keys=keys)
            if not self.in_place.can_name(trial):
                return None
            reply, refusals = await self.in_place.run(
                trial, index, self.in_place.effects, only_reads=True
            )
            if not refusals:
                return reply
            new = refusals.keys - set(keys)
            if not new:
                return None
            keys += sorted(new)
        return None

    def _profile(self, name: bytes) -> ScriptProfile:
        profile = self._profiles.setdefault(name, ScriptProfile())
        self._profiles.move_to_end(name)
        if len(self._profiles) > PROFILES_LIMIT:
            self._worker_scripts.forget(self._profiles.popitem(last=False)[0])
        return profile

    def worker_script_refused(self, letter: _core.Strayed) -> None:
        """A script that a worker ran was refused something, although it was proved harmless."""
        name = letter.script
        if name not in self._profiles:
            name = sha1(name)
        self._profile(name).reach = Reach.ANYTHING
        self._worker_scripts.forget(name)
        self._worker_scripts.workers.answer(letter, REFUSED_MIDWAY)

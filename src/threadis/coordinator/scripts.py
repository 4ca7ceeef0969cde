"""EVAL, EVALSHA, FCALL and their read-only forms.

A script runs in one of two ways::

    directly    on the instance of all its keys, guarded: it can touch only what it declared
    on copies   of its keys, borrowed from several instances, guarded too; what it touched without
                declaring is borrowed as well and the script run again, from a clean state

A script that nobody has seen yet runs on copies first: so whatever it does, nothing has happened
when we find that it needs a key of another instance. From then on it runs directly; so does, at
once, what only reads, and everything while a server takes no copies (at maxmemory). Every script
is fenced: an ECHO of something nobody can guess must be exactly the next reply, so a script that
forges replies forges only its own client's.

What is known to keep to its keys the workers run by themselves (``rust/src/scripts.rs``), unless
something is special about the client or the moment.
"""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from threadis import _core
from threadis.coordinator import fenced
from threadis.coordinator.borrowing import Outcome
from threadis.coordinator.busy import Busy
from threadis.coordinator.call import Call, declared
from threadis.coordinator.callers import Callers, named
from threadis.coordinator.execution import Execution
from threadis.coordinator.guard import (
    LISTED_LIMIT,
    LISTING,
    NOT_ON_COPIES,
    OTHER_DATABASES,
    RERUNS,
    TOO_MANY,
    TOO_MANY_TO_LIST,
    WHOLE_KEYSPACE,
    Guard,
    Refusals,
    only_one,
)
from threadis.coordinator.known import Known, covers
from threadis.coordinator.library import Library
from threadis.coordinator.links import Kind, Link
from threadis.coordinator.locality import EVERYTHING, LOCK, Group
from threadis.coordinator.locks import Lock
from threadis.coordinator.phases import RefusedError
from threadis.coordinator.table import Access
from threadis.coordinator.taught import Taught
from threadis.coordinator.users import Users
from threadis.coordinator.witness import Witness

KNOWN_LIMIT = 10_000  # scripts we remember something about
ACL_LOG = (b"ACL", b"LOG", b"128")  # as many entries as it keeps
NO_COPIES = (b"-OOM", b"-NOREPLICAS", b"-MISCONF")
RANDOM_KEY = b"randomkey"
EFFECTS = (*WHOLE_KEYSPACE, *NOT_ON_COPIES)


class Scripts:
    """Runs scripts and functions."""

    def __init__(
        self,
        execution: Execution,
        library: Library,
        busy: Busy,
        users: Users,
        callers: Callers,
        taught: Taught,
    ) -> None:
        self._busy = busy
        self._callers = callers
        self._taught = taught
        self._tracking = execution.tracking
        self._witness = Witness(execution.links, execution.table)
        self._users = users
        self._execution = execution
        self._links = execution.links
        self._table = execution.table
        self._library = library
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    async def run(self, command: _core.Command) -> bytes:
        """Run EVAL, EVALSHA, FCALL …"""
        args, info = command.args, command.info
        keys = declared(args)
        kind = Kind(resp=info.resp)
        family = args[0].lower()
        if keys is None:
            # The numbers are wrong, as any server will say before it looks at the script.
            index = self._links.any_ready()
            async with self._links.lease(index, kind, info.db) as link:
                return (await fenced.ask(link, args)).reply
        name, words = args[1], list(args)
        if family in (b"eval", b"eval_ro"):
            name = hashlib.sha1(args[1], usedforsecurity=False).hexdigest().encode()
        elif family in (b"evalsha", b"evalsha_ro"):
            name = args[1].lower()
        else:  # another library may give another function this name
            name = b"%d:%s" % (self._library.generation, args[1])
        writes, rights = not family.endswith(b"_ro"), self._users.rights(info.user)
        call = Call(name, words, keys, info.db, kind, writes, command.token, rights, info)
        await self._library.prepare(family, name, args[1])
        try:
            async with AsyncExitStack() as stack:
                if writes and command.token is None and self._tracking.is_unheard(command):
                    lock = await stack.enter_async_context(self._execution.locks.hold_everything())
                    call = replace(call, within=lock.token)
                gone: list[bytes] = []
                if command.token is None:
                    changing = self._tracking.changing(command, keys)
                    gone = await stack.enter_async_context(changing)
                # What it has not read is forgotten before anything is told.
                reading = self._tracking.reading(command, keys, self._witness)
                await stack.enter_async_context(reading)
                reply = await self._run(call)
                if not family.startswith(b"fcall"):
                    self._taught.tell(name, self._library.body(name), self._remember(name))
                if call.within != command.token:  # nobody else may change its keys
                    wrote = [Access(key, reads=False, writes=True) for key in keys]
                    gone += await self._execution.missing(wrote, call.db)
                return reply
        except RefusedError as error:
            return error.reply

    async def _run(self, call: Call) -> bytes:
        known = self._remember(call.name)
        owners = {self._table.owner(call.db, key) for key in call.keys}
        if len(owners) > 1:
            return await self._on_copies(call, known)
        index = self._home(call, call.keys)
        if EVERYTHING in self._groups(call):
            return (await self._directly(call, index))[0]
        # What only reads can be run again, whatever it has touched.
        declares = known.declares and (not known.is_local or self._groups(call))
        may_try = declares or not (call.writes or known.strays)
        if may_try or self._links.count == 1:
            reply = await self._at_home(call, known, index)
            if reply is not None:
                return reply
        try:
            return await self._on_copies(call, known)
        except RefusedError as error:
            if not error.reply.startswith(NO_COPIES):
                raise
            reply = await self._without_copies(call, known)
            return error.reply if reply is None else reply

    async def _without_copies(self, call: Call, known: Known) -> bytes | None:
        """Run at home, where no copies can be made; None if its keys are on several instances.

        At first it may only read: until it would write it can be run again, with more keys.
        """
        keys = list(dict.fromkeys([*call.keys, *known.guesses(self._groups(call))]))
        for _ in range(RERUNS):
            owners = {self._table.owner(call.db, key) for key in keys}
            if len(owners) > 1:
                return None
            index = self._home(call, keys)
            trial = replace(call, keys=keys)
            reply, refusals = await self._directly(trial, index, EFFECTS, only_reads=True)
            if not refusals or refusals.alone:
                return reply
            new = refusals.keys - set(keys)
            if not new:
                return await self._at_home(trial, known, index)
            keys += sorted(new)
        return TOO_MANY

    async def _at_home(self, call: Call, known: Known, index: int) -> bytes | None:
        """Run where all declared keys are; None if it needs others, and can be run again."""
        reply, refusals = await self._directly(call, index)
        if not refusals.keys and not refusals.alone:
            return reply
        known.declares, known.strays = False, True
        if not call.writes:
            return None
        return reply if refusals.alone else refusals.reply()

    def _remember(self, name: bytes) -> Known:
        known = self._known.setdefault(name, Known())
        self._known.move_to_end(name)
        if len(self._known) > KNOWN_LIMIT:
            self._taught.forget(self._known.popitem(last=False)[0])
        return known

    def strayed(self, letter: _core.Strayed) -> None:
        """A script that a worker ran does not keep to its keys any more."""
        name = letter.script
        if name not in self._known:
            name = hashlib.sha1(name, usedforsecurity=False).hexdigest().encode()
        known = self._remember(name)
        known.declares, known.strays = False, True
        self._taught.forget(name)
        self._taught.workers.answer(letter, self._taught.refusals(letter).reply())

    async def _anywhere(self, call: Call, keys: list[bytes]) -> bytes | None:
        """Run where RANDOMKEY may answer for all: where the keys are, or anywhere.

        Any key of the instance is a key; but that there is none must be true of all.
        """
        sizes = await self._links.call_all(b"DBSIZE", db=call.db)
        owners = {self._table.owner(call.db, key) for key in keys}
        candidates = [i for i, size in enumerate(sizes) if size or not any(sizes)]
        possible = [index for index in candidates if owners <= {index}]
        if not possible:
            return None
        weights = [max(sizes[index], 1) for index in possible]
        index = random.choices(possible, weights)[0]  # noqa: S311 - as random as RANDOMKEY
        denied = [name for name in self._alone(call.db) if name != RANDOM_KEY]
        reply, refusals = await self._directly(replace(call, keys=keys), index, denied)
        return reply if not refusals else only_one(refusals.keys | refusals.commands)

    async def _directly(
        self,
        call: Call,
        index: int,
        denied: Collection[bytes] | None = None,
        *,
        only_reads: bool = False,
    ) -> tuple[bytes, Refusals]:
        """Run on the real keys; what the guard refused besides the whole keyspace."""
        alone = self._alone(call.db)
        denied = alone if denied is None else denied
        local = self._groups(call)
        names = [(call.db, key) for key in call.keys]
        names += [(call.db, LOCK + group.prefix) for group in local]
        async with (
            self._execution.locks.stand_in_line(names, call.within),
            self._links.lease(index, call.kind, call.db) as link,
        ):
            guard = self._guard(link)
            before = guard.before(call.rights, call.keys, denied, local, only_reads=only_reads)
            name = self._callers.begin(call.info)
            async with self._busy.watch(index):
                answers = await fenced.ask(
                    link,
                    call.words,
                    before=[*before, named(name), guard.login()],
                    back=[self._links.login()],
                    after=[named(), ACL_LOG],
                )
            if answers.refusal is not None:  # another script runs there, say
                guard.abandon()
                return answers.refusal, Refusals()
            refusals, reply = await self._judge(guard, link, answers.after[-1], call, answers.reply)
            if refusals:
                self._callers.forget(name)
            refusals.alone = refusals.commands & set(alone)
            return only_one(refusals.alone) if refusals.alone else reply, refusals

    async def _on_copies_of_all(self, call: Call, known: Known) -> bytes | None:
        """Run where nothing is but copies of all keys of the database; None if these are too many.

        There it may list them.
        """
        known.strays = True
        async with self._execution.locks.hold_everything(call.within) as lock:
            if sum(await self._links.call_all(b"DBSIZE", db=call.db)) > LISTED_LIMIT:
                return None
            listed = await self._links.call_all(b"KEYS", b"*", db=call.db)
            keys = [key for some in listed for key in some]
            return await self._on_copies(replace(call, within=lock.token), known, keys)

    async def _on_copies(
        self, call: Call, known: Known, everything: Collection[bytes] | None = None
    ) -> bytes:
        """Run on borrowed keys until nothing undeclared is left, then write what has changed.

        Of ``everything``, if these are all keys there are.
        """
        local = self._groups(call)
        lists = everything is not None
        others = known.guesses(local) if everything is None else everything
        keys = list(dict.fromkeys([*call.keys, *others]))
        denied: Collection[bytes] = [name for name in EFFECTS if not lists or name not in LISTING]
        owners = len({self._table.owner(call.db, key) for key in call.keys})
        for _ in range(RERUNS):
            accesses = [Access(key, reads=True, writes=call.writes) for key in keys]
            names = [(call.db, key, call.writes) for key in keys]
            async with self._execution.hold(names, call.within) as lock:
                outcome, refusals = await self._try(call, keys, accesses, denied)
                if not refusals:
                    await self._write(call, outcome, lock)
                    known.ran(outcome.replies[0])
                    return outcome.replies[0]
            if new := sorted(refusals.keys - set(keys)):
                keys += new
                known.touched(new, local)
            elif alone := refusals.commands & set(self._alone(call.db)):
                if lists or not alone <= set(LISTING):
                    return only_one(alone)
                reply = await self._on_copies_of_all(call, known)
                if reply is None and alone == {RANDOM_KEY}:
                    reply = await self._anywhere(call, keys)
                return reply or TOO_MANY_TO_LIST
            elif (
                not lists
                and owners <= 1
                and all(key in call.keys or covers(local, key) for key in keys)
            ):
                # Everything it needs is on one instance: there it may do all it wants.
                known.declares = True
                index = self._home(call, keys)
                reply, refused = await self._directly(call, index)
                return reply if not refused else only_one(refused.keys | refused.commands)
            elif refusals.commands <= {b"publish", b"spublish"}:
                denied = [name for name in denied if b"publish" not in name]
            else:
                return only_one(refusals.commands)
        if not all(covers(local, key) for key in keys):
            return TOO_MANY
        # Too many to borrow one by one, but they all live where its keys do.
        index = self._table.owner(call.db, keys[0])
        return await self._at_home(call, known, index) or TOO_MANY

    async def _try(
        self, call: Call, keys: Sequence[bytes], accesses: list[Access], denied: Collection[bytes]
    ) -> tuple[Outcome, Refusals]:
        copies = await self._execution.borrowing.fetch(accesses, call.db)
        index = self._execution.home(call.db, keys)
        written = keys if call.writes else []
        scratch = self._execution.borrowing.scratch
        async with self._links.lease(index, call.kind, scratch) as link:
            guard = self._guard(link)
            before = guard.before(call.rights, keys, denied, copies_of=call.db)
            name = self._callers.begin(call.info)
            borrowing = self._execution.borrowing
            async with self._busy.watch(index):
                try:
                    outcome = await borrowing.evaluate_on(
                        link,
                        call.words,
                        copies,
                        written,
                        before=[*before, named(name), guard.login()],
                        back=[self._links.login()],
                        after=[named(), ACL_LOG],
                    )
                except RefusedError:
                    guard.abandon()
                    raise
            reply, log = outcome.replies[-3], outcome.replies[-1]
            refusals, reply = await self._judge(guard, link, log, call, reply)
            if refusals:
                self._callers.forget(name)
        return Outcome([reply], outcome.changes), refusals

    async def _judge(
        self, guard: Guard, link: Link, log: bytes, call: Call, reply: bytes
    ) -> tuple[Refusals, bytes]:
        """What the guard refused that the user may do; else the reply, in the user's name."""
        refusals = guard.refusals(log)
        if refusals or guard.denials:
            if call.rights:
                if reply.startswith(b"-"):
                    reply = reply.replace(guard.name, call.rights.user)
                if not refusals:
                    self._users.note_denials(guard.name, call.rights.user, guard.denials)
            await guard.retire(link)
        return refusals, reply

    async def _write(self, call: Call, outcome: Outcome, lock: Lock) -> None:
        if outcome.changes:
            parts = self._execution.borrowing.writes(outcome.changes, call.db)
            # What needs memory, the server has refused inside of the script.
            await self._execution.commit(parts, lock, call.db, needs_memory=False)

    def _alone(self, db: int) -> Collection[bytes]:
        """What no script may do, because it would see one instance only."""
        locality = self._execution.locality
        if locality.home(db) is not None:
            return (*OTHER_DATABASES, b"flushall", b"swapdb")
        return (*WHOLE_KEYSPACE, *OTHER_DATABASES) if locality.has_pins else WHOLE_KEYSPACE

    def _home(self, call: Call, keys: Sequence[bytes]) -> int:
        """Choose the instance for a script with these keys."""
        if keys:
            return self._table.owner(call.db, keys[0])
        pinned = self._execution.locality.home(call.db)
        return self._links.any_ready() if pinned is None else pinned

    def _groups(self, call: Call) -> list[Group]:
        """Find what lives where its keys do, if these are on one instance.

        A restricted user's script gets exact keys only.
        """
        return [] if call.rights else self._execution.locality.groups(call.db, call.keys)

    def _guard(self, link: Link) -> Guard:
        guard: Guard = link.guard or Guard()
        link.guard = guard
        return guard

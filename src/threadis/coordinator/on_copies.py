"""Running a script on copies of its keys, lent by several instances, until it needs no others.

Two ways to see what it touches besides what it was lent::

    by refusal   its guard may touch only what was lent; ACL LOG names what it was refused
    by looking   its guard may touch all that its user may; MONITOR shows what it has run

The first is cheaper, the second shows all keys of a run at once, and keys of any bytes. A run that
has touched other keys counts for nothing: it is made again, with copies of these.
"""

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from threadis.coordinator.alarms import Place
from threadis.coordinator.asking import TELLS, Asking
from threadis.coordinator.borrowing import Outcome
from threadis.coordinator.busy import Busy
from threadis.coordinator.call import Call
from threadis.coordinator.events import Publication
from threadis.coordinator.execution import Execution
from threadis.coordinator.feeding import Fed, Feeding
from threadis.coordinator.fenced import Answers
from threadis.coordinator.guard import (
    LISTED_LIMIT,
    LISTING,
    NO_LOOK,
    NOT_ALL_DECLARED,
    OTHER_DATABASES,
    PUBLISHING,
    RERUNS,
    SORTS,
    TOO_MANY,
    TOO_MANY_TO_LIST,
    Allowed,
    Refusals,
    guard_of,
    only_one,
)
from threadis.coordinator.guarded import Guards
from threadis.coordinator.in_place import InPlace
from threadis.coordinator.known import Known
from threadis.coordinator.links import Words
from threadis.coordinator.locality import Group, is_plain
from threadis.coordinator.locks import Lock
from threadis.coordinator.offload import LARGE
from threadis.coordinator.overall import Overall
from threadis.coordinator.phases import RefusedError
from threadis.coordinator.sorting import looks_at_others, patterns, sort_keys
from threadis.coordinator.table import Access
from threadis.coordinator.trial import SELECT, Trial, strays
from threadis.coordinator.witness import Witness

FEW = 64  # keys whose guard compares names quickly
MOST_PATTERNS = 10_000  # keys that a guard can be told of at all
LOOK_LIMIT = 16 * 1024 * 1024  # bytes of copies that MONITOR may repeat, four times as long
KEY_SECONDS = 0.0005  # more than the copies of one key take in a block, and to read them
BYTE_SECONDS = 1e-7  # the same of one byte: a big value is packed and read several times
RANDOM_KEY = b"randomkey"
SORT = b"sort"


class OnCopies:
    """Runs scripts on copies."""

    def __init__(
        self,
        execution: Execution,
        busy: Busy,
        guards: Guards,
        witness: Witness,
        in_place: InPlace,
        feeding: Feeding,
    ) -> None:
        self._feeding = feeding
        self._execution, self._busy, self._guards = execution, busy, guards
        self._witness, self._in_place = witness, in_place
        self._links, self._table = execution.links, execution.table
        self._writing = {row.name.encode() for row in execution.table.rows() if row.writes}

    async def run(
        self, call: Call, known: Known, everything: Collection[bytes] | None = None
    ) -> bytes:
        """Run on borrowed keys until nothing undeclared is left, then write what has changed.

        Of ``everything``, if these are all keys there are.
        """
        local = self._in_place.groups(call)
        lists = everything is not None
        others = known.guesses(local) if everything is None else everything
        denied = [name for name in self._in_place.effects if not lists or name not in LISTING]
        keys = list(dict.fromkeys([*call.keys, *others]))
        trial = Trial(keys, denied, looks=looks_at_others(call))
        if asking := Asking.of(call):  # its guard must be allowed what its user is
            trial.looks, trial.denied = True, asking.denied(denied)
            if told := asking.may_ask(trial.denied):
                return await self._refuse(call, known, told, lists=lists)
        for _ in range(RERUNS):
            async with AsyncExitStack() as stack:
                lock, fed = await self._begin(stack, call, trial)
                async with self._execution.events.of_one_command(call.db, has_scripts=True) as mine:
                    outcome, refusals = await self._try([call], trial)
                    mine.is_void = bool(refusals)
                    if outcome.changes and not refusals:
                        parts = self._execution.borrowing.writes(outcome.changes, call.db)
                        # What needs memory, the server has refused inside of the script.
                        await self._execution.commit(parts, lock, call.db, needs_memory=False)
                if not refusals:
                    if fed and call.ending:
                        places = trial.changed(call.db, outcome.changes)
                        stack.push_async_callback(fed.serve_these, places)
                        call.ending.push_async_exit(stack.pop_all())
                    return outcome.replies[0]
            have = set(trial.keys)
            if new := [key for key in refusals.keys if key not in have]:
                trial.keys += new
                trial.looks = True
                known.touched(new, local)
            elif alone := refusals.commands & set(self._in_place.alone(call.db)):
                return await self._refuse(call, known, alone, lists=lists, keys=trial.keys)
            elif refusals.commands <= set(PUBLISHING):  # it needs nothing else: now it may
                trial.denied = [name for name in trial.denied if name not in PUBLISHING]
            elif refusals.commands == {SELECT} and self._may_wander([call], trial, lists=lists):
                trial.wanders, trial.looks = {0}, True
            else:
                return await self._refuse(call, known, refusals.commands, lists=True)
        return TOO_MANY

    async def _begin(
        self, stack: AsyncExitStack, call: Call, trial: Trial
    ) -> tuple[Lock, Fed | None]:
        """Lock the keys of a run, and what else those need who wait for them."""
        names = [(call.db, key, call.writes) for key in trial.keys]
        await self._feeding.all_known(call, trial.keys)
        waited = self._feeding.waited(call, trial.keys) if call.ending else []
        also = self._feeding.also_lock(waited)
        lock = await stack.enter_async_context(self._execution.hold([*names, *also], call.within))
        if waited := self._feeding.waited(call, trial.keys) if call.ending else []:
            trial.looks = trial.looks or len(waited) > 1
        return lock, self._feeding.begin(stack, waited, lock) if waited else None

    async def _refuse(
        self,
        call: Call,
        known: Known,
        commands: Collection[bytes],
        *,
        lists: bool,
        keys: Sequence[bytes] = (),
    ) -> bytes:
        """Say that commands cannot be run on copies; of all keys some can."""
        if set(commands) <= set(OTHER_DATABASES):
            return NOT_ALL_DECLARED
        if lists or not set(commands) <= set(LISTING):
            return only_one(commands)
        reply = await self._of_all(call, known)
        if reply is None and set(commands) == {RANDOM_KEY} and TELLS not in call.body:
            reply = await self._anywhere(call, keys)
        return reply or TOO_MANY_TO_LIST

    def _may_wander(self, calls: Sequence[Call], trial: Trial, *, lists: bool) -> bool:
        """Whether to let more SELECT, which is fine if they touch nothing there and write nothing.

        Who may list keys, could there, too; who is kept from databases, would not be; who asks
        for his rights, would be told that he may not write.
        """
        new = [calls[at] for at in trial.selects - trial.wanders]
        is_kept = any(call.rights is not None and call.rights.has_databases() for call in new)
        return bool(new) and not (lists or is_kept or any(TELLS in call.body for call in new))

    def _denied(self, at: int, call: Call, trial: Trial) -> Collection[bytes]:
        """What the guard of one of the scripts is denied."""
        asking = Asking.of(call)
        denied = asking.denied(trial.denied) if asking else trial.denied
        if at not in trial.wanders:
            return denied
        allowed = [name for name in denied if name != SELECT]
        return [*allowed, *self._writing] if call.writes else allowed

    async def run_all(
        self,
        pieces: Sequence[Words | Call],
        keys: Sequence[bytes],
        knowns: Mapping[bytes, Known],
        lock: Lock,
        order: Sequence[int],
        messages: Iterable[Publication],
    ) -> tuple[list[bytes], list[Place]] | None:
        """Run scripts and commands of one client as one, with all their ``keys``; their replies,
        and what has changed.

        ``knowns`` is what is known of the scripts, by name; ``order`` has the places of all in the
        transaction, in which there are these ``messages``, too. The caller holds a lock on
        everything. None if that cannot be: nothing was done then.
        """
        calls = [one for one in pieces if isinstance(one, Call)]
        db = calls[0].db
        local: dict[bytes, list[Group]] = {name: [] for name in knowns}
        for call in calls:
            local[call.name] += self._in_place.groups(call)
        guesses = [key for name, known in knowns.items() for key in known.guesses(local[name])]
        askings = [asking for call in calls if (asking := Asking.of(call))]
        if any(asking.may_ask(asking.denied(self._in_place.effects)) for asking in askings):
            return None
        looks = bool(askings) or any(map(looks_at_others, calls))
        trial = Trial(list(dict.fromkeys([*keys, *guesses])), self._in_place.effects, looks)
        plain = [one for one in pieces if not isinstance(one, Call)]
        overall = await Overall.look(self._links, plain, [db])
        for _ in range(RERUNS):
            async with self._execution.events.of_one_command(db, has_scripts=True) as mine:
                mine.places = order
                outcome, refusals = await self._try(pieces, trial)
                mine.is_void = bool(refusals)
                if not mine.is_void:
                    await self._execution.write_back(outcome, lock, db, needs_memory=True)
                    for message in messages:
                        mine.publish(message)
                    overall.without({db: outcome.lent})
                    replies = [
                        reply if isinstance(one, Call) else overall.reply(one, reply, db)
                        for one, reply in zip(pieces, outcome.replies, strict=True)
                    ]
                    return replies, trial.changed(db, outcome.changes)
            have = set(trial.keys)
            if new := [key for key in refusals.keys if key not in have]:
                trial.keys += new
                trial.looks = True
                for name, known in knowns.items():
                    known.touched(new, local[name])
            elif refusals.commands <= {SORT, *PUBLISHING, *LISTING}:
                if not refusals.commands.isdisjoint(LISTING):
                    if (everything := await self._all_keys(db)) is None:
                        return None
                    trial.keys = list(dict.fromkeys([*trial.keys, *everything]))
                allowed = refusals.commands & {*PUBLISHING, *LISTING}
                trial.denied = [name for name in trial.denied if name not in allowed]
            elif refusals.commands == {SELECT} and self._may_wander(
                calls, trial, lists=not set(LISTING) <= set(trial.denied)
            ):
                trial.wanders |= trial.selects
                trial.looks = True
            else:
                return None
        return None

    async def _try(self, pieces: Sequence[Words | Call], trial: Trial) -> tuple[Outcome, Refusals]:
        """One run; what it has done, and what else it needs."""
        calls = [one for one in pieces if isinstance(one, Call)]
        keys, call = trial.keys, calls[0]
        writes = len(pieces) > 1 or call.writes
        borrowing = self._execution.borrowing
        accesses = [Access(key, reads=True, writes=writes) for key in keys]
        copies = await borrowing.fetch(accesses, call.db)
        index = self._execution.home(call.db, keys)
        is_exact = len(keys) <= MOST_PATTERNS and all(map(is_plain, keys))
        looks = trial.looks or not is_exact or len(keys) > FEW
        size = sum(len(copy.dump) for copy in copies.values())
        if looks and size > LOOK_LIMIT:
            look_needed = any(TELLS in one.body or looks_at_others(one) for one in calls)
            if not is_exact or look_needed:
                raise RefusedError(NO_LOOK)
            looks = False
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(
                self._links.lease(index, call.kind, borrowing.scratch)
            )
            look = await stack.enter_async_context(self._witness.look(index)) if looks else None
            copies_of = (call.db, borrowing.scratch)
            allowed = [
                Allowed(None if looks else keys, self._denied(at, one, trial), copies=copies_of)
                for at, one in enumerate(calls)
            ]
            guards = [guard_of(link)] if len(calls) == 1 else [None] * len(calls)
            questions = list(trial.sorts)
            asked: list[Words] = [[b"SORT", source, b"BY", b"nosort"] for source in questions]
            scripts = [
                self._guards.enclose(
                    one,
                    may,
                    guard,
                    before=[*([look.before] if look and one is calls[0] else []), *asked],
                    after=[look.after] if look and one is calls[-1] else [],
                )
                for one, may, guard in zip(calls, allowed, guards, strict=True)
            ]
            left = iter(scripts)
            block = [next(left).fence if isinstance(one, Call) else one for one in pieces]
            around = len(keys) * KEY_SECONDS + size * BYTE_SECONDS
            async with self._busy.watch(index, around) as was_killed:
                try:
                    outcome = await borrowing.evaluate_on(
                        link, block, copies, keys if writes else [], sweeps=looks
                    )
                except RefusedError:
                    for script in scripts:
                        script.guard.abandon()
                    raise
            refusals, killed = Refusals(), b""
            found = [Answers(one.reply) for one in outcome.answers]
            places = [at for at, one in enumerate(pieces) if isinstance(one, Call)]
            trial.selects = set()
            for number, (at, script) in enumerate(zip(places, scripts, strict=True)):
                script.answers = outcome.answers[at]
                refused, reply = await self._guards.judge(script, link)
                refusals.keys |= refused.keys
                refusals.commands |= refused.commands
                if SELECT in refused.commands:
                    trial.selects.add(number)
                killed = reply if was_killed(reply) else killed
                found[at] = Answers(reply)
            if look and not killed:
                ran = await look.commands()
                if trial.wanders and (
                    refusals.commands & self._writing or strays(ran, borrowing.databases)
                ):
                    refusals.commands = {SELECT}
                trial.note_order(self._table, (words for _, words in ran))
                touched = await self._touched([words for _, words in ran], keys, call.db)
                refusals.keys = touched.difference(keys)
                for script in scripts if questions else ():
                    # Right before its guard is let in.
                    replies = script.answers.before[-1 - len(asked) : -1]
                    await self._execution.own_reads.note(index, asked, replies)
                    refusals.keys |= trial.named(questions, replies).difference(keys)
                if len(pieces) > 1 and trial.note_sorts(words for _, words in ran):
                    refusals.commands.add(SORT)  # commands before it may have changed its elements
            for script in scripts:
                self._guards.settle(script, index, counts=bool(killed) or not refusals)
            if killed:
                raise RefusedError(killed)
        return replace(outcome, answers=found), refusals

    async def _touched(
        self, commands: Iterable[Words], lent: Collection[bytes], db: int
    ) -> set[bytes]:
        """The keys of some commands, which ran on copies of those that were lent."""
        found: set[bytes] = set()
        written: set[bytes] = set()
        for number, words in enumerate(commands, 1):
            if number % LARGE == 0:
                await asyncio.sleep(0)  # others have their turn
            try:
                parsed = self._table.parse(words)
            except KeyError:
                continue  # nothing that exists
            found.update(access.key for access in parsed.keys)
            if parsed.row.name in ("sort", "sort_ro"):
                if patterns(words) and words[1] in written:
                    raise RefusedError(SORTS)  # nobody knows which elements it had
                if words[1] in lent:  # its real one is as it was lent
                    looked_at = await sort_keys(self._execution, parsed, db)
                    found.update(access.key for access in looked_at)
            written.update(access.key for access in parsed.keys if access.writes)
        return found

    async def _of_all(self, call: Call, known: Known) -> bytes | None:
        """Run where nothing is but copies of all keys of the database; None if these are too many.

        There it may list them.
        """
        async with self._execution.locks.hold_everything(call.within) as lock:
            if (keys := await self._all_keys(call.db)) is None:
                return None
            async with AsyncExitStack() as ending:  # as long as this lock holds
                there = replace(call, within=lock.token, ending=ending if call.ending else None)
                return await self.run(there, known, keys)

    async def _all_keys(self, db: int) -> list[bytes] | None:
        """The keys of a database, if they are not too many. The caller holds everything."""
        if sum(await self._links.call_all(b"DBSIZE", db=db)) > LISTED_LIMIT:
            return None
        return [key for some in await self._links.call_all(b"KEYS", b"*", db=db) for key in some]

    async def _anywhere(self, call: Call, keys: Sequence[bytes]) -> bytes | None:
        """Run where RANDOMKEY may answer for all: where the keys are, or anywhere.

        Any key of the instance is a key; but that there is none must be true of all. It may only
        read: what it then needs besides could not be had.
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

"""The block in which commands and scripts run on copies.

Each database that the client uses has one of ours for its copies::

    SELECT, RESTORE copies, DUMP what may change          for each database
    the commands and the scripts, each in its own
    SELECT, DUMP and PEXPIRETIME again, DEL copies        for each database
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from threadis import resp
from threadis.catalog.commands import FLUSHES, SWEEPS
from threadis.coordinator.base.command_table import KeyAccess, ParsedCommand
from threadis.coordinator.base.databases import (
    OUTSIDE,
    are_client_databases,
    is_flush_syntax,
    renumber_databases,
)
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import fenced, long_replies
from threadis.coordinator.instances.fenced import NOT_RUN, Fence, FencedReplies
from threadis.coordinator.instances.links import Link, LinkError, Words
from threadis.coordinator.keys.keyspace_events import command_events
from threadis.coordinator.lua.script_call import ScriptCall
from threadis.coordinator.lua.sort_patterns import key_from_pattern, patterns
from threadis.coordinator.multikey import oom_blocks
from threadis.coordinator.multikey.borrowing import (
    Borrowing,
    Changes,
    Copy,
    find_changes,
    surrounding_commands,
)
from threadis.coordinator.multikey.phases import RefusedError


class CopyStep(NamedTuple):
    """A command, its client's database, and if it is a script, its call."""

    parsed: ParsedCommand
    db: int
    call: ScriptCall | None = None

    @property
    def name(self) -> str:
        """Its row's name."""
        return self.parsed.row.name

    @property
    def patterns(self) -> list[bytes]:
        """SORT's patterns that name keys."""
        return patterns(self.parsed.args)

    @property
    def sweeps(self) -> bool:
        """Whether it changes whole databases."""
        words = self.parsed.args[1:]
        if self.name in FLUSHES:
            return is_flush_syntax(words)
        return self.name in SWEEPS and are_client_databases(words, OUTSIDE)

    @property
    def swept(self) -> list[int]:
        """The databases that it changes as a whole."""
        if self.name == "swapdb":
            return list(map(int, self.parsed.args[1:]))
        return [self.db] if self.name == "flushdb" else []


@dataclass(slots=True)
class LentKeys:
    """The copies of one database's keys, and where they are."""

    scratch: int
    is_swept: bool  # whole
    reads_all: bool  # any value may be read
    writes_all: bool  # any key may be changed
    keys: dict[bytes, KeyAccess] = field(default_factory=dict)
    copies: dict[bytes, Copy] = field(default_factory=dict)

    def add(self, access: KeyAccess) -> None:
        """Add an access to a key."""
        known = self.keys.get(access.key)
        if (
            known or self.reads_all or self.writes_all
        ):  # an optimisation: there may be very many keys
            known = known or access
            reads = access.reads or known.reads or self.reads_all
            writes = access.writes or known.writes or self.writes_all
            access = KeyAccess(access.key, reads, writes)
        self.keys[access.key] = access

    def lacks(self, key: bytes) -> bool:
        """Whether a key was not lent for reading."""
        return key not in self.keys or not self.keys[key].reads

    @property
    def written(self) -> list[bytes]:
        """The keys whose values the commands may change."""
        return [key for key, access in self.keys.items() if access.writes]


LentByDatabase = dict[int, LentKeys]  # by the client's databases


class CopyBlock:
    """The commands for the instance that has the copies, and their replies by place."""

    def __init__(
        self,
        lents: LentByDatabase,
        pieces: Sequence[CopyStep],
        fences: Sequence[Fence] = (),
        *,
        asks: bool = False,
        sweeps: bool = False,
    ) -> None:
        """``fences`` are the scripts among the pieces, in order. It ``asks`` for the keys that SORT
        refers to; it ``sweeps`` if scripts may have written keys that were not lent.
        """
        self.words: list[Words | Fence] = []
        self._lents, self._pieces, self._sweeps = lents, pieces, sweeps
        self._asked: dict[int, int] = {}  # by piece: where SORT's elements are asked for
        self._ours = set[int]()
        self._places: list[int] = []  # of the pieces
        self._now = self._home = min(lent.scratch for lent in lents.values())
        lines = {
            db: surrounding_commands(lent.copies, lent.written, sweeps=sweeps)
            for db, lent in lents.items()
        }
        before = {db: self._add_ours(db, lines[db][0]) for db in lents}
        self._written_until = len(self.words)
        self._add_pieces(iter(fences), asks=asks)
        self._commands_until = len(self.words)
        if mine := command_events.get():
            self.words.append(mine.end())
        after = {db: self._add_ours(db, lines[db][1]) for db in lents}
        self._select(self._home)
        self._around = {db: (before[db], after[db]) for db in lents}

    def _add_pieces(self, fences: Iterator[Fence], *, asks: bool) -> None:
        mine, numbers = command_events.get(), {db: lent.scratch for db, lent in self._lents.items()}
        orders = (mine.places if mine else ()) or [0] * len(self._pieces)
        for at, (piece, order) in enumerate(zip(self._pieces, orders, strict=True)):
            if asks and piece.patterns:
                if mine:
                    self.words.append(mine.mute())
                self._select(numbers[piece.db])
                self._asked[at] = len(self.words)
                self._ours.add(len(self.words))
                self.words.append([b"SORT", piece.parsed.args[1], b"BY", b"nosort"])
            if mine:
                self.words.append(mine.step(order))
            self._select(numbers[piece.db])
            if piece.call:
                self.words.append(next(fences))
            elif piece.name in FLUSHES and piece.sweeps:
                self._flush(piece)
            else:
                self.words.append(renumber_databases(piece.parsed.args, numbers, piece.db))
            self._places.append(len(self.words) - 1)

    def _select(self, number: int) -> None:
        if number != self._now:
            self.words.append([b"SELECT", b"%d" % number])
            self._now = number

    def _add_ours(self, db: int, words: Sequence[Words]) -> range:
        self._select(self._lents[db].scratch)
        begin = len(self.words)
        self.words += words
        found = range(begin, len(self.words))
        self._ours.update(found)
        return found

    def _flush(self, piece: CopyStep) -> None:
        """Delete the copies one by one: FLUSHDB would be reported to clients that track keys."""
        if mine := command_events.get():
            self.words.append(mine.mute())
        for db in self._lents if piece.name == "flushall" else [piece.db]:
            lent = self._lents[db]
            self._select(lent.scratch)
            if lent.keys:
                self.words.append([b"DEL", *lent.keys])
        self.words.append([b"ECHO", b"OK"])

    async def run(
        self, link: Link, borrowing: Borrowing, *, needs_memory: bool
    ) -> list[FencedReplies]:
        """Run it; RefusedError if the server refuses. Without memory only what needs none."""
        size = sum(len(lent.keys) for lent in self._lents.values())
        await link.select(self._home)
        told = await offload(size, fenced.FencedBlock, self.words)
        told.send(link)
        found = await told.receive(link)
        if (refusal := found[0].refusal) is not None:
            if needs_memory or not refusal.startswith(oom_blocks.NO_MEMORY):
                raise RefusedError(refusal)
            found = await self._run_without_memory(link, borrowing, refusal)
        asked = await offload(size, self._asked_by_us, found)
        await borrowing.own_reads.note(link.index, *asked)
        for _, after in self._around.values() if self._sweeps else ():
            said = found[after[0]].reply
            if said.startswith(b"-"):  # for instance, it was killed
                await borrowing.clean(link.index)
                raise RefusedError(said)
            count = int(said[1 : said.index(b"\r")])  # name, value and expiry time of each key
            borrowing.own_reads.of(link.index).hits += 2 * (count // 3)
        return found

    def _asked_by_us(self, found: Sequence[FencedReplies]) -> tuple[list[Words], list[bytes]]:
        """Return our own questions, and their replies."""
        places = sorted(self._ours)
        questions = [words for at in places if not isinstance(words := self.words[at], Fence)]
        return questions, [found[at].reply for at in places]

    async def _run_without_memory(
        self, link: Link, borrowing: Borrowing, refusal: bytes
    ) -> list[FencedReplies]:
        """Run where no block is accepted."""
        plain = [words for words in self.words if not isinstance(words, Fence)]
        if len(self._pieces) == 1 and len(plain) < len(self.words):
            async with borrowing.alone[link.index]:
                return await self._run_script_without_memory(link, borrowing)
        if len(plain) < len(self.words):
            return await self._run_scripts_without_memory(link)
        commands = plain[self._written_until : self._commands_until]
        if not oom_blocks.can_return(commands, link.kind.resp):
            raise RefusedError(refusal)
        reply = (await link.ask(oom_blocks.block(plain, link.kind.resp), wait=None))[0]
        results = await oom_blocks.results(reply, plain[: self._commands_until], link.kind.resp)
        if results is None:
            raise RefusedError(reply)
        return [FencedReplies(one) for one in results]

    async def _run_scripts_without_memory(self, link: Link) -> list[FencedReplies]:
        """Scripts among commands: a server that queues them (Valkey 9) queues ours, too."""
        words = list(self.words)
        starts = ((before.start, self._lents[db]) for db, (before, _) in self._around.items())
        pairs = [(at, len(lent.copies)) for at, lent in starts if lent.copies]
        for at, count in reversed(pairs):
            restores = [one for one in words[at : at + count] if not isinstance(one, Fence)]
            words[at : at + count] = [oom_blocks.block(restores, link.kind.resp)]
        told = await offload(len(words), fenced.FencedBlock, words)
        told.send(link)
        found = await told.receive(link)
        if (refusal := found[0].refusal) is not None:
            raise RefusedError(refusal)
        for at, _ in pairs:
            restored = await oom_blocks.results(found[at].reply, [], link.kind.resp)
            if restored is None:
                raise RefusedError(found[at].reply)
            found[at : at + 1] = map(FencedReplies, restored)
        return found

    async def _run_script_without_memory(
        self, link: Link, borrowing: Borrowing
    ) -> list[FencedReplies]:
        """A single script: its copies are made before it."""
        ((before, after),) = self._around.values()
        (lent,), (place,) = self._lents.values(), self._places
        script = self.words[place]
        assert isinstance(script, Fence)
        first, last = surrounding_commands(lent.copies, lent.written, sweeps=self._sweeps)
        restores, dumps = first[: len(lent.copies)], first[len(lent.copies) :]
        made = (await link.ask(oom_blocks.block(restores, link.kind.resp)))[0]
        try:
            restored = await oom_blocks.results(made, [], link.kind.resp)
            if restored is None:
                raise RefusedError(made)
            fence = replace(script, before=[*dumps, *script.before], after=[*script.after, *last])
            answers = await fenced.ask(link, fence)
            if answers.refusal is not None:
                raise RefusedError(answers.refusal)
            if self._sweeps and answers.after[-1].startswith(b"-"):
                raise RefusedError(answers.after[-1])
        except BaseException:
            with contextlib.suppress(LinkError):
                await borrowing.clean(link.index)
            raise
        count = len(script.after)
        found = [NOT_RUN] * len(self.words)
        old = [*restored, *answers.before[: len(dumps)]]
        found[before.start : before.stop] = map(FencedReplies, old)
        found[after.start : after.stop] = map(FencedReplies, answers.after[count:])
        found[place] = replace(
            answers, before=answers.before[len(dumps) :], after=answers.after[:count]
        )
        return found

    def scripts(self, found: Sequence[FencedReplies]) -> list[FencedReplies]:
        """Return the replies of the scripts."""
        pairs = zip(self._pieces, self._places, strict=True)
        return [found[at] for piece, at in pairs if piece.call]

    def replies(self, found: Sequence[FencedReplies]) -> list[bytes]:
        """Return the reply of each piece."""
        return [
            resp.OK if piece.name in FLUSHES and piece.sweeps else found[at].reply
            for piece, at in zip(self._pieces, self._places, strict=True)
        ]

    async def missing(self, found: Sequence[FencedReplies]) -> dict[int, set[bytes]]:
        """Return the keys, by database, that SORT refers to and that were not lent."""
        missing = defaultdict[int, set[bytes]](set)
        for at, place in self._asked.items():
            piece = self._pieces[at]
            elements = await long_replies.value(found[place].reply)
            for element in elements if isinstance(elements, list) else ():
                names = (key_from_pattern(pattern, element) for pattern in piece.patterns)
                missing[piece.db].update(filter(self._lents[piece.db].lacks, names))
        return missing

    async def changes(self, db: int, found: Sequence[FencedReplies]) -> Changes:
        """Return the changed keys of a database."""
        lent = self._lents[db]
        written, before, after = await offload(len(lent.keys), self._replies_around, db, found)
        return await find_changes(
            lent.copies,
            written,
            before,
            after,
            db,
            compares=not lent.is_swept,
            sweeps=self._sweeps,
        )

    def _replies_around(
        self, db: int, found: Sequence[FencedReplies]
    ) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Return what may have been written, and the replies of the ``surrounding_commands``."""
        before, after = ([found[at].reply for at in places] for places in self._around[db])
        return self._lents[db].written, before, after

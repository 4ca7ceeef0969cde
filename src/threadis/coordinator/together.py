"""Commands of one client on copies of their keys: one command, or a transaction's, as one write.

The copies are made, and what has changed is found, in the block in which the commands run (see
``borrowing``); each database that the client uses has one of ours in it::

    SELECT, RESTORE copies, DUMP what may change          for each database
    the commands, each in its own
    SELECT, DUMP and PEXPIRETIME again, DEL copies        for each database

What SORT's patterns name is known when it runs: all is first tried, with a question for its
elements in front of it, until no key is missing that these name. FLUSHDB, FLUSHALL and SWAPDB are
done to the copies; on the instances they come first, in their order, and then each key that the
commands name gets the value that it has on the copies.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from threadis import ours, resp
from threadis.commands import FLUSHES, SWEEPS
from threadis.coordinator import borrowing, fenced, long, scarcity
from threadis.coordinator.borrowing import Copy
from threadis.coordinator.databases import OUTSIDE, are_within, flushes, renumbered
from threadis.coordinator.events import telling
from threadis.coordinator.links import Kind, Words
from threadis.coordinator.locks import Lock
from threadis.coordinator.offload import offload
from threadis.coordinator.overall import Overall
from threadis.coordinator.phases import Part, RefusedError
from threadis.coordinator.plans import other_databases
from threadis.coordinator.sorting import key_of, patterns
from threadis.coordinator.table import Access, Parsed

if TYPE_CHECKING:
    from threadis.coordinator.execution import Execution

TRIES: Final = 100  # each shows keys that the one before did not
TOO_MANY: Final = resp.error(
    f"ERR threadis: a transaction that needs keys of several instances together can use "
    f"{ours.COPIES} databases, no more; divide it"
)
NO_END: Final = resp.error("ERR threadis: SORT names other keys whenever it is tried")


class Piece(NamedTuple):
    """A command, and the database that its client is in."""

    parsed: Parsed
    db: int

    @property
    def name(self) -> str:
        """Its row's name."""
        return self.parsed.row.name

    @property
    def patterns(self) -> list[bytes]:
        """Those that name keys."""
        return patterns(self.parsed.args)

    @property
    def sweeps(self) -> bool:
        """Whether it changes whole databases."""
        words = self.parsed.args[1:]
        if self.name in FLUSHES:
            return flushes(words)
        return self.name in SWEEPS and are_within(words, OUTSIDE)


@dataclass(slots=True)
class Lent:
    """The copies of one database's keys, and where they are."""

    scratch: int
    is_swept: bool
    keys: dict[bytes, Access]
    copies: dict[bytes, Copy] = field(default_factory=dict)

    @property
    def written(self) -> list[bytes]:
        """What may be another value behind the commands."""
        return [key for key, access in self.keys.items() if access.writes or self.is_swept]


class Block:
    """What the instance is told that has the copies; its replies, by their places."""

    def __init__(self, lents: dict[int, Lent], pieces: Sequence[Piece], *, is_trial: bool) -> None:
        self.words: list[Words] = []
        self.asked: dict[int, int] = {}  # by piece: where SORT's elements are asked for
        self._lents, self._ours = lents, set[int]()
        mine = telling.get()
        self._places: list[int] = []  # of the pieces
        self._now = home = min(lent.scratch for lent in lents.values())
        around = {db: borrowing.around(lent.copies, lent.written) for db, lent in lents.items()}
        before = {db: self._add_ours(db, around[db][0]) for db in lents}
        self.written_until = len(self.words)
        numbers = {db: lent.scratch for db, lent in lents.items()}
        orders = (mine.places if mine else ()) or [0] * len(pieces)
        for at, (piece, order) in enumerate(zip(pieces, orders, strict=True)):
            if mine:
                self.words.append(mine.silence() if is_trial else mine.step(order))
            self._select(numbers[piece.db])
            if is_trial and piece.patterns:
                self.asked[at] = len(self.words)
                self._ours.add(len(self.words))
                self.words.append([b"SORT", piece.parsed.args[1], b"BY", b"nosort"])
            if piece.sweeps and piece.name in FLUSHES:
                self._flush(piece)
            else:
                self.words.append(renumbered(piece.parsed.args, numbers, piece.db))
            self._places.append(len(self.words) - 1)
        self.commands_until = len(self.words)
        if mine:
            self.words.append(mine.end())
        after = {db: self._add_ours(db, around[db][1]) for db in lents}
        self._select(home)
        self._around = {db: (before[db], after[db]) for db in lents}

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

    def _flush(self, piece: Piece) -> None:
        """Delete the copies one by one: whoever tracks keys is told of FLUSHDB."""
        if mine := telling.get():
            self.words.append(mine.silence())
        for db in self._lents if piece.name == "flushall" else [piece.db]:
            lent = self._lents[db]
            self._select(lent.scratch)
            if lent.keys:
                self.words.append([b"DEL", *lent.keys])
        self.words.append([b"ECHO", b"OK"])

    def replies(self, pieces: Sequence[Piece], found: Sequence[bytes]) -> list[bytes]:
        """Each piece's own."""
        return [
            resp.OK if piece.sweeps and piece.name in FLUSHES else found[at]
            for piece, at in zip(pieces, self._places, strict=True)
        ]

    def questions(self, found: Sequence[bytes]) -> tuple[list[Words], list[bytes]]:
        """What was asked for ourselves, and the replies to it."""
        places = sorted(self._ours)
        return [self.words[at] for at in places], [found[at] for at in places]

    async def changes(self, db: int, found: Sequence[bytes]) -> dict[bytes, Copy | None]:
        """What keys of a database are now, of those that have changed."""
        lent = self._lents[db]
        before, after = ([found[at] for at in places] for places in self._around[db])
        return await borrowing.find_changes(
            lent.copies, lent.written, before, after, db, compares=not lent.is_swept
        )


class Together:
    """One run."""

    def __init__(
        self, execution: "Execution", pieces: Sequence[Piece], lock: Lock, kind: Kind
    ) -> None:
        self._execution, self._pieces = execution, pieces
        self._lock, self._kind = lock, kind
        swept: set[int] = set()
        names: dict[int, dict[bytes, Access]] = {piece.db: {} for piece in pieces}
        for piece in pieces:
            far = other_databases(piece.parsed, piece.db)
            if piece.sweeps and piece.name == "swapdb":
                swept.update(map(int, piece.parsed.args[1:]))
            elif piece.sweeps and piece.name == "flushdb":
                swept.add(piece.db)
            for db, _, _ in far:
                names.setdefault(db, {})
            for access in piece.parsed.keys:
                _add(names[piece.db], access)
            for db, key, _ in far:
                _add(names[db], Access(key, reads=True, writes=True))
        for db in swept:
            names.setdefault(db, {})
        if any(piece.name == "flushall" and piece.sweeps for piece in pieces):
            swept.update(names)
        if len(names) > ours.COPIES:
            raise RefusedError(TOO_MANY)
        first = execution.borrowing.scratch
        self._lents = {
            db: Lent(first + at, db in swept, names[db]) for at, db in enumerate(sorted(names))
        }
        if mine := telling.get():
            mine.dbs = list(self._lents)
        self._swaps = any(piece.name == "swapdb" and piece.sweeps for piece in pieces)

    async def run(self, db: int) -> list[bytes]:
        """Do it; the replies. What is written begins in database ``db``.

        RefusedError if a server would not.
        """
        pieces, execution = self._pieces, self._execution
        needs_memory = any(piece.parsed.row.needs_memory for piece in pieces)
        if self._lock.everything and any(piece.patterns for piece in pieces):
            await self._find_keys(needs_memory=needs_memory)
        else:
            await self._fetch()
        asked = [piece.parsed.args for piece in pieces]
        overall = await Overall.look(execution.links, asked, list(self._lents))
        overall.without({db: lent.copies.keys() for db, lent in self._lents.items()})
        block, found = await self._tell(needs_memory=needs_memory, is_trial=False)
        parts = _Parts(db, execution.links.everyone())
        for piece in pieces:
            if piece.sweeps:
                parts.sweep(piece)
        for where in self._lents:
            changes = await block.changes(where, found)
            writes = await offload(len(changes), execution.borrowing.writes, changes, where)
            for index, part in writes.items():
                parts.add(index, where, part)
        if written := parts.all():
            await execution.commit(written, self._lock, db, needs_memory=needs_memory)
        replies = []
        for piece, reply in zip(pieces, block.replies(pieces, found), strict=True):
            replies.append(overall.reply(piece.parsed.args, reply, piece.db))
            if piece.sweeps:
                overall.sweep(piece.parsed.args, piece.db)
        return replies

    async def _fetch(self) -> None:
        """Copy all that is named; from one database to another it may go by SWAPDB."""
        lents = self._lents
        if self._swaps:
            names = {key for lent in lents.values() for key in lent.keys}
            for lent in lents.values():
                if lent.is_swept:
                    for key in names:
                        _add(lent.keys, Access(key, reads=True, writes=True))
        for db, lent in lents.items():
            keys: Iterable[Access] = lent.keys.values()
            if len(lents) > 1 or lent.is_swept:
                keys = [access._replace(reads=True) for access in keys]
            lent.copies = await self._execution.borrowing.fetch(keys, db)
        sizes = (len(copy.dump) for lent in lents.values() for copy in lent.copies.values())
        borrowing.check_size(sum(sizes))

    async def _find_keys(self, *, needs_memory: bool) -> None:
        """Try until SORT names no keys that were not lent. The caller has locked everything."""
        for _ in range(TRIES):
            await self._fetch()
            block, found = await self._tell(needs_memory=needs_memory, is_trial=True)
            is_complete = True
            for at, place in block.asked.items():
                piece = self._pieces[at]
                elements = await long.value(found[place])
                keys = self._lents[piece.db].keys
                for element in elements if isinstance(elements, list) else ():
                    for pattern in piece.patterns:
                        key = key_of(pattern, element)
                        if key not in keys or not keys[key].reads:
                            is_complete = False
                            _add(keys, Access(key, reads=True, writes=False))
            if is_complete:
                return
        raise RefusedError(NO_END)

    async def _tell(self, *, needs_memory: bool, is_trial: bool) -> tuple[Block, list[bytes]]:
        """Run everything on copies; RefusedError if that cannot be."""
        execution, kind = self._execution, self._kind
        owners = [
            owner
            for db, lent in self._lents.items()
            for owner in execution.table.owners_by_name(db, list(lent.keys))
        ]
        size = sum(len(lent.keys) for lent in self._lents.values())
        block = await offload(size, Block, self._lents, self._pieces, is_trial=is_trial)
        home, scratch = execution.home_of(owners), execution.borrowing.scratch
        async with execution.links.lease(home, kind, scratch) as link:
            told = fenced.Block(block.words)
            told.send(link)
            answers = await told.receive(link)
            found = [one.reply for one in answers]
            if (refusal := answers[0].refusal) is not None:
                commands = block.words[block.written_until : block.commands_until]
                is_scarce = refusal.startswith(scarcity.NO_MEMORY)
                if needs_memory or not is_scarce or not scarcity.tells(commands, kind.resp):
                    raise RefusedError(refusal)
                scarce = scarcity.block(block.words, kind.resp)
                reply = (await link.ask(scarce, wait=None))[0]
                results = await scarcity.results(reply, block.words[: block.commands_until])
                if results is None:
                    raise RefusedError(reply)
                found = results
        await execution.own_reads.note(home, *block.questions(found))
        return block, found


class _Parts:
    """A write's part for each instance, which begins and ends in one database."""

    def __init__(self, db: int, everyone: Collection[int]) -> None:
        self._db, self._everyone = db, everyone
        self._parts: dict[int, list[Words]] = defaultdict(list)
        self._now: dict[int, int] = {}

    def sweep(self, piece: Piece) -> None:
        """Add what changes whole databases."""
        for index in self._everyone:
            self.add(index, piece.db, [piece.parsed.args])

    def add(self, index: int, db: int, words: Iterable[Words]) -> None:
        """Add commands in a database."""
        if self._now.get(index, self._db) != db:
            self._parts[index].append([b"SELECT", b"%d" % db])
        self._now[index] = db
        self._parts[index] += words

    def all(self) -> dict[int, Part]:
        """All of them."""
        for index in list(self._parts):
            self.add(index, self._db, [])
        return dict(self._parts)


def _add(keys: dict[bytes, Access], access: Access) -> None:
    """Add what is done to a key to what else is."""
    if known := keys.get(access.key):
        access = Access(access.key, access.reads or known.reads, access.writes or known.writes)
    keys[access.key] = access

"""The coordinator's own connections to the instances; each runs one batch of commands at a time.

A connection that saw a timeout, a transport error or a cancelled call is closed and never used
again: its next reply would belong to the wrong question.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import hiredis

from threadis import _core, control, own_names
from threadis.coordinator.base.offload import LARGE, join_pieces
from threadis.coordinator.instances import sockets
from threadis.coordinator.instances.deadline import Deadline
from threadis.coordinator.instances.lease import Lease
from threadis.coordinator.instances.packed import WRITE_MOST, Packable, parts

TIMEOUT = 5.0  # seconds; a call that takes longer fails, unless its instance is at work
READ_MOST = 1024 * 1024  # bytes; copies of large keys come in many pieces else
GONE = (control.State.RESTARTING, control.State.FAILED)  # there is no process
KEEP = 16  # idle connections to each instance, of each kind

ANONYMOUS = b""  # a connection that is not logged in
Words = Sequence[bytes]  # one command
# True while a client's command runs: it may not reach an instance that is being made ready.
is_for_a_client: ContextVar[bool] = ContextVar("is_for_a_client", default=False)


class LinkError(Exception):
    """An instance could not be asked, or did not answer; the text names it."""


class UnknownOutcomeError(LinkError):
    """What was sent may or may not have run."""


class TooLongError(LinkError):
    """An argument is longer than an instance accepts; nothing of its command was sent."""


class BusyError(LinkError):
    """A script runs too long; the text is the server's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The protocol and the user of a connection."""

    resp: int = 2
    user: bytes = own_names.ADMIN


@dataclass(slots=True)
class Limits:
    """Limits of the instances."""

    argument: int = 512 * 1024**2  # bytes; their ``proto-max-bulk-len``

    def check(self, commands: Iterable[Packable]) -> None:
        """Raise TooLongError if an argument is too long.

        What we make of clients' arguments (copies, records) may be longer than any of them.
        """
        longest = max(map(len, itertools.chain.from_iterable(commands)), default=0)
        if longest > self.argument:
            raise TooLongError(
                f"ERR threadis: this command needs {longest} bytes at once on an instance; "
                f"proto-max-bulk-len is {self.argument}"
            )


@dataclass(slots=True)
class Link:
    """One connection; ``Links.lease`` lends it."""

    limits: Limits
    index: int
    kind: Kind
    socket: str
    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    replies: _core.Replies = field(default_factory=_core.Replies)
    id: int = 0  # as CLIENT LIST shows it
    db: int = 0
    is_spoilt: bool = False  # never to be used again
    sender: asyncio.Task[None] | None = None  # sends what is long, piece by piece
    is_patient: bool = False  # waits for its instance even if that seems to be stopped
    sandbox_user: Any = None  # its user for scripts, see ``sandbox_user.SandboxUser``

    async def ask(self, *commands: Packable, wait: float | None = TIMEOUT) -> list[bytes]:
        """Send commands, return their replies as they came; ``wait`` None: no time limit.

        Raises UnknownOutcomeError, and spoils the connection, if not all are answered.
        """
        self.send(*commands)
        return await self.receive(len(commands), wait)

    def send(self, *commands: Packable) -> None:
        """Send commands; their replies must be received next."""
        packed = _core.Packed(commands[:LARGE])
        is_more = len(commands) > LARGE
        if is_more or len(packed) > self.limits.argument:
            self.limits.check(commands)
        pieces = parts(packed, commands)
        self.writer.write(next(pieces, b""))
        if is_more or len(packed) > WRITE_MOST:
            self.sender = asyncio.create_task(self._send_on(pieces))

    async def _send_on(self, pieces: Iterator[bytes]) -> None:
        """Send the rest piece by piece; errors show when the replies are read."""
        with contextlib.suppress(OSError):
            for piece in pieces:
                await asyncio.sleep(0)  # other tasks run
                await self.writer.drain()
                if self.is_spoilt:
                    return
                self.writer.write(piece)

    async def receive(self, count: int, wait: float | None = TIMEOUT) -> list[bytes]:
        """Wait for so many replies; as ``ask``."""
        deadline = None if wait is None else Deadline(self.reader, self.pid, wait)
        try:
            found: list[bytes] = []
            while len(found) < count:
                found.append(await self.next_reply())
                more = self.replies.take(min(count - len(found), LARGE))
                found += [await joined(one) for one in more]
                if len(more) == LARGE:
                    await asyncio.sleep(0)
            return found
        except BaseException as error:
            self.is_spoilt = True
            if isinstance(error, (OSError, TimeoutError, EOFError, ValueError)):
                what = "did not answer; the command may or may not have run"
                raise UnknownOutcomeError(f"ERR instance {self.index} {what}") from error
            raise
        finally:
            if deadline:
                deadline.cancel()

    def is_reusable(self) -> bool:
        """Whether the connection can be used again."""
        is_sent = self.sender is None or self.sender.done()
        return is_sent and not self.is_spoilt and self.reader.exception() is None

    async def next_reply(self) -> bytes:
        """Wait for one reply; EOFError, OSError or ValueError if none can come."""
        while (reply := self.replies.next()) is None:
            data = await self.reader.read(READ_MOST)
            if not data:
                raise EOFError("the instance hung up")
            self.replies.feed(data)
        return await joined(reply)

    async def select(self, db: int) -> None:
        """Make this database the current one."""
        if self.db != db:
            (reply,) = await self.ask([b"SELECT", b"%d" % db])
            if reply != b"+OK\r\n":
                self.is_spoilt = True
                raise BusyError(reply[1:-2].decode(errors="replace"))
            self.db = db


class Links:
    """Calls to instances; knows where each one listens."""

    def __init__(self, count: int, password: bytes) -> None:
        self.count = count
        self._password = password
        self.limits = Limits()
        self._instances: list[control.Instance | None] = [None] * count
        self.unprepared: set[int] = set()  # instances that lack something clients rely on
        self.prepared: dict[int, str] = {}  # by instance, the socket of a process that had it all
        self._idle: dict[tuple[int, Kind], list[Link]] = {}
        self._lent: list[Link] = []

    def count_lent(self) -> int:
        """Return how many connections are lent."""
        return len(self._lent)

    def update(self, instance: control.Instance) -> None:
        """Note where an instance is; close connections to where it was."""
        self._instances[instance.index] = instance
        for (index, _), idle in self._idle.items():
            if index == instance.index:
                for link in idle:
                    link.writer.close()
                idle.clear()
        if instance.state is control.State.STOPPED:  # for how long is unknown, so waiting ends
            for link in self._lent:
                if link.index == instance.index and not link.is_patient:
                    link.reader.set_exception(TimeoutError())

    def are_known(self) -> bool:
        """Whether the supervisor has reported every instance."""
        return None not in self._instances

    def instance(self, index: int) -> control.Instance:
        """Return what is known of an instance."""
        known = self._instances[index]
        if known is None:
            raise LinkError(f"instance {index} is not known yet")
        return known

    def is_gone(self, index: int, socket: str) -> bool:
        """Whether the process that listened there has ended."""
        known = self.instance(index)
        return known.socket != socket or known.state in GONE

    def ready(self) -> list[int]:
        """Return the instances that can be asked."""
        return [
            index
            for index, known in enumerate(self._instances)
            if known and known.state is control.State.READY
        ]

    def any_ready(self) -> int:
        """Return an instance that can be asked; LinkError if there is none."""
        ready = self.ready()
        if not ready:
            raise LinkError("TRYAGAIN no instance is ready; the command was not run")
        return ready[0]

    def login(self, name: bytes = own_names.ADMIN) -> Words:
        """Return the AUTH command of our admin user, or of another user."""
        return [b"AUTH", name, self._password]

    def all_instances(self) -> range:
        """Return the numbers of all instances."""
        return range(self.count)

    async def call(self, index: int, *args: bytes, db: int = 0) -> Any:
        """Ask one instance; errors are returned as hiredis.ReplyError values.

        Raises LinkError if there is no answer.
        """
        return value((await self.raw(index, [args], db=db))[0])

    async def call_or_fail(self, index: int, *args: bytes, db: int = 0) -> Any:
        """Ask one instance; LinkError also if it returns an error, for instance BUSY."""
        reply = await self.call(index, *args, db=db)
        if isinstance(reply, hiredis.ReplyError):
            raise LinkError(str(reply))
        return reply

    async def call_all(self, *args: bytes, db: int = 0) -> list[Any]:
        """Ask every instance at once; LinkError if one does not answer, or returns an error."""
        asked = (self.call_or_fail(index, *args, db=db) for index in self.all_instances())
        return await asyncio.gather(*asked)

    async def raw(
        self,
        index: int,
        commands: Iterable[Packable],
        *,
        db: int = 0,
        kind: Kind = Kind(),
        wait: float | None = TIMEOUT,
    ) -> list[bytes]:
        """Send commands to one instance in one batch; return the replies as they came."""
        try:
            async with self.lease(index, kind, db) as link:
                return await link.ask(*commands, wait=wait)
        except BusyError:
            if db:
                raise
        # SCRIPT KILL, say; a new connection is in this database.
        link = await self.connect(index, kind)
        try:
            return await link.ask(*commands, wait=wait)
        finally:
            link.writer.close()

    async def connect(self, index: int, kind: Kind = Kind()) -> Link:
        """Open a connection that the caller alone reads and closes."""
        return await self._connect(self._reachable(index), kind)

    def lease(self, index: int, kind: Kind = Kind(), db: int | None = None) -> Lease:
        """Lend a connection, in a database if one is named; the caller spoils it (``is_spoilt``) if
        its state has changed.
        """
        return Lease(self, index, kind, db)

    async def take(self, index: int, kind: Kind, db: int | None) -> Link:
        """Find an idle connection, if possible one in this database; else open one."""
        known = self._reachable(index)
        idle = self._idle.setdefault((index, kind), [])
        at = next((at for at, link in enumerate(idle) if link.db == db), -1)
        link = idle.pop(at) if idle else await self._connect(known, kind)
        self._lent.append(link)
        if db is not None and link.db != db:
            try:
                await link.select(db)
            except BaseException:
                self.give_back(link)
                raise
        return link

    def give_back(self, link: Link) -> None:
        """Keep a connection for later, or close it."""
        self._lent.remove(link)
        idle = self._idle[link.index, link.kind]
        # The instance may have moved meanwhile; then this connection leads nowhere.
        is_here = link.socket == self.instance(link.index).socket
        if is_here and link.is_reusable() and len(idle) < KEEP:
            idle.append(link)
        else:
            link.writer.close()

    def _reachable(self, index: int) -> control.Instance:
        known = self.instance(index)
        if known.state not in (control.State.READY, control.State.LOADING):
            raise LinkError(f"TRYAGAIN instance {index} is {known.state}; the command was not run")
        if not self._is_prepared(known) and is_for_a_client.get():
            raise LinkError(f"TRYAGAIN instance {index} is starting; the command was not run")
        return known

    def _is_prepared(self, known: control.Instance) -> bool:
        index = known.index
        return index not in self.unprepared and self.prepared.get(index) == known.socket

    def state(self, index: int) -> str:
        """Return an instance's state; it is ready once clients' commands reach it."""
        known = self.instance(index)
        is_ready = known.state is control.State.READY
        return "starting" if is_ready and not self._is_prepared(known) else known.state.value

    async def open_socket(self, index: int) -> socket.socket:
        """Connect to an instance; LinkError if that fails."""
        known = self.instance(index)
        try:
            return await sockets.connect(known.socket, lambda: self._instances[index] is known)
        except OSError as error:
            raise LinkError(
                f"TRYAGAIN instance {index} cannot be reached; the command was not run"
            ) from error

    async def _connect(self, known: control.Instance, kind: Kind) -> Link:
        end = await self.open_socket(known.index)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=READ_MOST)
        link = Link(self.limits, known.index, kind, known.socket, known.pid, reader, writer)
        if kind.user == ANONYMOUS:
            return link
        with contextlib.suppress(LinkError):
            hello = [b"HELLO", b"%d" % kind.resp, b"AUTH", kind.user, self._password]
            reply = (await link.ask(hello))[0]
            if not reply.startswith(b"-"):
                link.id = id_of(value(reply))
                return link
        writer.close()
        raise LinkError(
            f"TRYAGAIN instance {known.index} rejected our login; the command was not run"
        )


async def joined(reply: bytes | _core.Pieces) -> bytes:
    """Join what was too long to be handed over at once."""
    return reply if isinstance(reply, bytes) else await join_pieces(reply)


def id_of(hello: Any) -> int:
    """Return a connection's own id, from HELLO's reply in RESP2 or RESP3."""
    fields = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    return int(fields[b"id"])


def values(replies: Iterable[bytes]) -> list[Any]:
    """Decode replies, all at once."""
    reader = hiredis.Reader()
    reader.feed(b"".join(replies))
    found = []
    while (one := reader.gets()) is not False:
        found.append(one)
    return found


def value(reply: bytes) -> Any:
    """Decode a reply; errors are hiredis.ReplyError values."""
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()

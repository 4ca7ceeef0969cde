"""The supervisor's own connection to an instance: does it run, is it ours, does it answer?

Any answer means alive. Only a server that loads says so in an error text; no client can cause that
text on this connection.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import hiredis

from threadis import own_names
from threadis.control import State
from threadis.errors import DataError
from threadis.system.process import Activity, activity
from threadis.system.socket_file import SocketFile

log = logging.getLogger("threadis")

CONNECT_RETRY = 0.01  # seconds between tries while the server starts
PING_INTERVAL = 0.25  # seconds between questions
DEADLINE = 1.0  # seconds for an answer; then the kernel is asked what the process is doing
LOADING_INTERVAL = 0.02  # seconds between questions while it loads
BRIEF = 0.1  # seconds; a server that was ready may load for so long (DEBUG RELOAD) and still is
SURVEY_INTERVAL = 1.0  # seconds between questions about its files
LOOK_INTERVAL = 0.25  # seconds between looks while no answer comes
REPLY_LIMIT = 1024 * 1024  # bytes; INFO is a few thousand


class HealthError(Exception):
    """The connection is not usable; another one is tried."""


class Health:
    """Asks one instance process for its state, until the process ends."""

    def __init__(
        self,
        path: str,
        password: str,
        pid: int,
        become: Callable[[State], None],
        admit: Callable[["Connection"], Awaitable[None]],
        survey: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._path, self._password, self._pid = path, password, pid
        self._become = become
        self._admit = admit  # once, when it has loaded its data and before it is ready
        self._survey = survey  # again and again: what it says of its files
        self._is_admitted = False
        self._connection: Connection | None = None
        self._file = SocketFile(path)
        self._has_answered = False

    async def watch(self) -> None:
        """Report every change of the state, for ever."""
        with contextlib.closing(self._file):
            await self._watch()

    async def _watch(self) -> None:
        while True:
            try:
                self._file.mend()
                self._connection = await Connection.open(self._path, self._pid)
                self._file.hold()
                await self._ask_on(self._connection)
            except (OSError, EOFError, HealthError, ValueError):
                await asyncio.sleep(PING_INTERVAL if self._has_answered else CONNECT_RETRY)
            except DataError:
                raise  # it may not be served
            except Exception:  # any error: an instance that is not watched is lost
                log.exception("process %d cannot be watched; trying again", self._pid)
                await asyncio.sleep(PING_INTERVAL)
            finally:
                self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    async def _ask_on(self, connection: "Connection") -> None:
        reply = await self._answered(
            connection.ask("AUTH", own_names.ADMIN.decode(), self._password)
        )
        last_ready, last_survey = float("-inf"), float("-inf")  # the loop's time
        while reply.startswith(b"+OK"):
            self._file.mend()
            pong = await self._answered(connection.ask("PING"))
            self._has_answered = True
            now = asyncio.get_running_loop().time()
            if not pong.startswith(b"-LOADING"):
                last_ready = now
                await self._be_ready(connection)
                if now - last_survey > SURVEY_INTERVAL:
                    last_survey = now
                    said = await self._answered(connection.ask("INFO", "persistence"))
                    await self._survey(said)
                await asyncio.sleep(PING_INTERVAL)
                continue
            if now - last_ready > PING_INTERVAL + BRIEF:
                self._become(State.LOADING)
            await asyncio.sleep(LOADING_INTERVAL)
        raise HealthError(reply.decode("utf-8", "replace"))

    async def _be_ready(self, connection: "Connection") -> None:
        if not self._is_admitted:
            self._become(State.STARTING)
            await self._admit(connection)
            self._is_admitted = True
        self._become(State.READY)

    async def _answered(self, question: Coroutine[None, None, bytes]) -> bytes:
        """Wait for the answer, however late; report a stopped process meanwhile."""
        answer = asyncio.ensure_future(question)
        try:
            before: Activity = activity(self._pid)
            await asyncio.wait([answer], timeout=DEADLINE)
            while not answer.done():
                self._file.mend()
                now = activity(self._pid)
                if now.is_stopped(before):
                    self._become(State.STOPPED)
                before = now
                await asyncio.wait([answer], timeout=LOOK_INTERVAL)
            return answer.result()
        finally:
            answer.cancel()


class Connection:
    """A connection to a process that we have started, verified by the kernel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, path: str, pid: int) -> "Connection":
        """Connect; refuse a server that is not process ``pid``."""
        reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_LIMIT)
        peer = writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        found: int = struct.unpack("3i", peer)[0]
        if found != pid:
            writer.close()
            raise HealthError(f"{path} belongs to process {found}, not to {pid}")
        return cls(reader, writer)

    async def ask(self, *words: str) -> bytes:
        """Send one command; return its reply: a line, or the content of a bulk string."""
        self._writer.write(_encoded(words))
        await self._writer.drain()
        line = await self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        if line.startswith(b"$") and (length := int(line[1:])) >= 0:
            return (await self._reader.readexactly(length + 2))[:-2]
        return line

    async def values(self, *words: str) -> Any:
        """Send one command; return its decoded reply."""
        reader = hiredis.Reader()
        self._writer.write(_encoded(words))
        await self._writer.drain()
        while (found := reader.gets()) is False:
            if not (content := await self._reader.read(REPLY_LIMIT)):
                raise EOFError
            reader.feed(content)
        return found

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            self._writer.close()


def _encoded(words: Sequence[str]) -> bytes:
    encoded = [word.encode("utf-8", "surrogateescape") for word in words]
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
    return b"*%d\r\n%s" % (len(words), b"".join(parts))


async def ask(path: str, password: str, pid: int, words: list[str], seconds: float) -> bytes | None:
    """Send one command on a new connection; None if there is no answer in time."""
    connection = None
    try:
        async with asyncio.timeout(seconds):
            connection = await Connection.open(path, pid)
            await connection.ask("AUTH", own_names.ADMIN.decode(), password)
            return await connection.ask(*words)
    except (OSError, EOFError, HealthError, ValueError):  # TimeoutError is an OSError
        return None
    finally:
        if connection:
            connection.close()

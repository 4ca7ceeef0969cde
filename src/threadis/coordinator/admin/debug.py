"""DEBUG, where it is allowed: on the key's instance, on all instances, or on any."""

import asyncio
import contextlib
import hashlib
import itertools
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from threadis import _core, resp
from threadis.coordinator.admin.pause import Pause
from threadis.coordinator.base.command_table import CommandTable
from threadis.coordinator.instances.links import Kind, Links, Words, value
from threadis.coordinator.instances.packed import pack
from threadis.coordinator.keys.locks import Locks

KEYED: Final = frozenset(("object", "listpack", "quicklist", "ziplist", "sdslen", "htstats-key"))
# The same on every instance, and nothing is changed.
ANYWHERE: Final = frozenset(("help", "error", "stringmatch-len", "structsize"))
# Texts about an instance; ours is one below the other.
TEXTS: Final = frozenset(("htstats", "jmap"))
ENDINGS: Final = frozenset(
    ("segfault", "panic", "restart", "crash-and-recover", "oom", "assert", "close-client")
)
OURS: Final = frozenset(("client-eviction", "config-rewrite-force-all"))
# These need the lock on everything: no other client may see the keyspace half changed.
ALONE: Final = frozenset(("reload", "loadaof", "populate"))
BATCH: Final = 2000  # keys of POPULATE that are written at once
KEY_LENGTH: Final = 127  # bytes of a key of POPULATE, as the server cuts it
# Bytes of PROTOCOL PUSH's answer in RESP3: a push and a reply, in an order of the server's own.
PUSH_LENGTH: Final = 79
EMPTY: Final = bytes(20)
AWAKE_LIMIT: Final = 2.0  # seconds until the supervisor sees that an instance answers again
AWAKE_INTERVAL: Final = 0.01  # seconds between looks


class Debug:
    """Runs DEBUG subcommands."""

    def __init__(self, links: Links, locks: Locks, table: CommandTable, pause: Pause) -> None:
        self._pause = pause
        self._locks = locks
        self._table = table
        self._links = links
        self._own: dict[str, Callable[[_core.Command], Awaitable[bytes]]] = {
            "digest": self._digest,
            "digest-value": self._digest_value,
            "populate": self._populate,
            "protocol": self._protocol,
        }

    async def run(self, command: _core.Command) -> bytes:
        """DEBUG subcommand …."""
        word = command.args[1].decode(errors="replace").lower()
        if word in ENDINGS or word in OURS:
            what = "ends one instance" if word in ENDINGS else "is about an instance's clients"
            return resp.error(f"ERR threadis: DEBUG {word.upper()} {what}; it is not supported")
        if word == "sleep":
            with self._pause.sleeping():
                return await self._run(word, command)
        if word in ALONE:
            async with self._locks.hold_everything(command.token):
                return await self._run(word, command)
        return await self._run(word, command)

    async def _run(self, word: str, command: _core.Command) -> bytes:
        if word in self._own:
            return await self._own[word](command)
        if word in KEYED and len(command.args) > 2:
            return await self._ask(self._table.owner(command.info.db, command.args[2]), command)
        if word in ANYWHERE:
            return await self._ask(self._links.any_ready(), command)
        replies = await asyncio.gather(
            *(self._ask(index, command) for index in self._links.all_instances())
        )
        if word == "sleep":
            await self._awaken()
        failed = next((reply for reply in replies if reply.startswith(b"-")), None)
        if failed is not None:
            return failed
        if word in TEXTS:
            texts = [str_bytes(value(reply)) for reply in replies]
            return resp.text(b"".join(texts), command.info.resp)
        if len(set(replies)) > 1:
            return resp.error(f"ERR threadis: DEBUG {word.upper()} differs between the instances")
        return replies[0]

    async def _ask(self, index: int, command: _core.Command) -> bytes:
        """Ask one instance, without a time limit: SLEEP and RELOAD may take long."""
        async with self._links.lease(index, Kind(command.info.resp), command.info.db) as link:
            link.is_patient = True  # a server that sleeps is taken for stopped
            try:
                return (await link.ask(command.args, wait=None))[0]
            finally:
                link.is_patient = False

    async def _awaken(self) -> None:
        """Wait until the supervisor sees that an instance that slept answers again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AWAKE_LIMIT):
                while len(self._links.ready()) < self._links.count or self._links.unprepared:
                    await asyncio.sleep(AWAKE_INTERVAL)

    async def _digest(self, command: _core.Command) -> bytes:
        """Return the digest of all keys; within a database the server XORs those of the keys.

        If all keys are in one database it is the digest that a single server would show. Otherwise
        it is another one, which is still the same for the same data.
        """
        if len(command.args) != 2:
            return await self._ask(self._links.any_ready(), command)
        sizes = [keyspace(text) for text in await self._links.call_all(b"INFO", b"keyspace")]
        digests = await self._links.call_all(*command.args)
        dbs = sorted(set().union(*sizes))
        found = [bytes.fromhex(digest.decode()) for digest in digests if int(digest, 16)]
        if len(dbs) > 1:
            return resp.simple(hashlib.sha1(b"".join(found), usedforsecurity=False).hexdigest())
        begin = mixed(EMPTY, struct.pack(">I", dbs[0])) if dbs else EMPTY
        total = begin
        for digest in found:
            total = xor(total, xor(digest, begin))
        return resp.simple(total.hex())

    async def _digest_value(self, command: _core.Command) -> bytes:
        keys = command.args[2:]
        replies = await asyncio.gather(
            *(
                self._links.raw(
                    self._table.owner(command.info.db, key),
                    [[*command.args[:2], key]],
                    db=command.info.db,
                )
                for key in keys
            )
        )
        digests = [part for [reply] in replies for part in _core.elements(reply)]
        return resp.array(digests)

    async def _protocol(self, command: _core.Command) -> bytes:
        is_push = [word.lower() for word in command.args[2:]] == [b"push"]
        if command.info.resp == 3 and is_push:
            async with self._links.lease(self._links.any_ready(), Kind(3)) as link:
                link.is_spoilt = True  # it has had a push, which other commands must not see
                link.writer.write(pack(command.args))
                return await link.reader.readexactly(PUSH_LENGTH)
        return await self._ask(self._links.any_ready(), command)

    async def _populate(self, command: _core.Command) -> bytes:
        """POPULATE count [prefix [size]]: each key on its own instance."""
        words = command.args[2:]
        numbers = [words[at] for at in (0, 2) if at < len(words)]
        if not 1 <= len(words) <= 3 or not all(map(is_number, numbers)):
            return await self._ask(self._links.any_ready(), command)  # which says what is wrong
        prefix = words[1] if len(words) > 1 else b"key"
        size = int(words[2]) if len(words) > 2 else 0
        count = int(words[0])
        for begin in range(0, count, BATCH):
            parts: dict[int, list[Words]] = {}
            for number in range(begin, min(begin + BATCH, count)):
                key = (b"%s:%d" % (prefix.partition(b"\0")[0], number))[:KEY_LENGTH]
                text = b"value:%d" % number
                text = text[:size].ljust(size, b"\0") if size else text
                parts.setdefault(self._table.owner(command.info.db, key), []).append(
                    [b"SET", key, text, b"NX"]
                )
            answers = await asyncio.gather(
                *(
                    self._links.raw(index, part, db=command.info.db, wait=None)
                    for index, part in parts.items()
                )
            )
            for reply in itertools.chain.from_iterable(answers):
                if reply.startswith(b"-"):
                    return reply
        return resp.OK


def is_number(word: bytes) -> bool:
    """Whether this is a count as the server accepts it: plain digits of a 64-bit number."""
    return word.isdigit() and str(int(word)).encode() == word and int(word) < 2**63


def keyspace(info: bytes) -> set[int]:
    """Return the databases that have keys, from INFO keyspace."""
    lines = info.decode().splitlines()
    return {int(line[2:].partition(":")[0]) for line in lines if line.startswith("db")}


def str_bytes(text: bytes | str) -> bytes:
    """Encode a text that hiredis has decoded because it was a verbatim string."""
    return text.encode() if isinstance(text, str) else text


def xor(one: bytes, other: bytes) -> bytes:
    """XOR two digests."""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def mixed(digest: bytes, data: bytes) -> bytes:
    """The server's mixDigest."""
    return sha1(xor(digest, sha1(data)))


def sha1(data: bytes) -> bytes:
    """The hash of the server's digests."""
    return hashlib.sha1(data, usedforsecurity=False).digest()

"""DBSIZE, KEYS and RANDOMKEY among commands on copies: the whole keyspace, minus what was lent."""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from threadis import _core, resp
from threadis.coordinator.instances.links import Links, Words

KEYSPACE_QUERIES: Final = frozenset({"dbsize", "keys", "randomkey"})
FEW: Final = 1000  # keys of a database: RANDOMKEY chooses among all of them
TRIES: Final = 20  # of RANDOMKEY at each instance, for one that was not lent


# By pattern; by None some for RANDOMKEY.
Listed = dict[bytes | None, list[bytes]]


class KeyspaceView:
    """What databases contain besides the copies, while commands run on these."""

    def __init__(self, sizes: dict[int, int], keys: dict[int, Listed]) -> None:
        self._sizes, self._keys = sizes, keys  # of each database
        self._lent: dict[int, int] = {}

    @classmethod
    async def look(
        cls, links: Links, commands: Sequence[Words], dbs: Collection[int]
    ) -> "KeyspaceView":
        """Ask all instances what these commands need, for some databases.

        The caller holds the lock on everything.
        """
        sizes: dict[int, int] = {}
        keys: dict[int, Listed] = {db: {} for db in dbs}
        for words in commands:
            for db in dbs:
                if _name(words) in ("dbsize", "randomkey") and db not in sizes:
                    sizes[db] = sum(await links.call_all(b"DBSIZE", db=db))
                if _name(words) == "keys" and len(words) == 2 and words[1] not in keys[db]:
                    found = await links.call_all(b"KEYS", words[1], db=db)
                    keys[db][words[1]] = [key for some in found for key in some]
                elif _name(words) == "randomkey" and None not in keys[db]:
                    if sizes[db] <= FEW:
                        found = await links.call_all(b"KEYS", b"*", db=db)
                        keys[db][None] = [key for some in found for key in some]
                    else:
                        told = [await links.call_all(b"RANDOMKEY", db=db) for _ in range(TRIES)]
                        keys[db][None] = [key for some in told for key in some if key]
        return cls(sizes, keys)

    def without(self, lent: Mapping[int, Collection[bytes]]) -> None:
        """Subtract the keys that were lent."""
        for db, names in lent.items():
            self._lent[db] = len(names)
            if db in self._sizes:
                self._sizes[db] -= len(names)
            for listed in self._keys.get(db, {}).values():
                listed[:] = [key for key in listed if key not in names]

    def sweep(self, words: Words, db: int) -> None:
        """Apply FLUSHDB, FLUSHALL or SWAPDB."""
        if _name(words) == "swapdb":
            one, other = map(int, words[1:])
            sizes, keys = self._sizes, self._keys
            keys[one], keys[other] = keys[other], keys[one]
            if sizes:
                sizes[one], sizes[other] = sizes[other], sizes[one]
            return
        for where in self._keys if _name(words) == "flushall" else [db]:
            if self._sizes:
                self._sizes[where] = 0
            for listed in self._keys[where].values():
                listed.clear()

    def reply(self, words: Words, reply: bytes, db: int) -> bytes:
        """Combine a command's reply on copies with the rest of the keyspace."""
        if reply.startswith(b":") and _name(words) == "dbsize":
            return resp.integer(self._sizes[db] + int(reply[1:-2]))
        if reply.startswith(b"*") and _name(words) == "keys":
            others = map(resp.bulk, self._keys[db][words[1]])
            return resp.array([*_core.elements(reply), *others])
        if not reply.startswith(b"-") and _name(words) == "randomkey":
            candidates, lent = self._keys[db][None], self._lent.get(db, 0)
            is_other = random.randrange(self._sizes[db] + lent + 1) < self._sizes[db]  # noqa: S311
            if candidates and (is_other or reply in resp.NULLS):
                return resp.bulk(random.choice(candidates))  # noqa: S311 - as random as RANDOMKEY
        return reply


def _name(words: Words) -> str:
    return words[0].lower().decode(errors="replace")

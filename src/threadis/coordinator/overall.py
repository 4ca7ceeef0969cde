"""DBSIZE and KEYS among commands on copies: what all instances say, but for what was lent."""

from collections.abc import Collection, Sequence
from typing import Final

from threadis import _core, resp
from threadis.coordinator.links import Links, Words

LISTS: Final = frozenset({"dbsize", "keys"})


class Overall:
    """What whole databases have, before commands run on copies of some keys."""

    def __init__(self, size: int, keys: dict[bytes, list[bytes]]) -> None:
        self._size, self._keys = size, keys

    @classmethod
    async def look(cls, links: Links, commands: Sequence[Words], db: int) -> "Overall":
        """Ask all instances what these commands will be asked; the caller holds everything."""
        size, keys = 0, {}
        for words in commands:
            if _name(words) == "dbsize":
                size = sum(await links.call_all(b"DBSIZE", db=db))
            elif _name(words) == "keys" and len(words) == 2 and words[1] not in keys:
                found = await links.call_all(b"KEYS", words[1], db=db)
                keys[words[1]] = [key for some in found for key in some]
        return cls(size, keys)

    def reply(self, words: Words, reply: bytes, lent: Collection[bytes]) -> bytes:
        """What a command's reply on copies of ``lent`` keys says of all there are."""
        if reply.startswith(b":") and _name(words) == "dbsize":
            return resp.integer(self._size - len(lent) + int(reply[1:-2]))
        if reply.startswith(b"*") and _name(words) == "keys":
            others = [key for key in self._keys[words[1]] if key not in lent]
            return resp.array([*_core.elements(reply), *(resp.bulk(key) for key in others)])
        return reply


def _name(words: Words) -> str:
    return words[0].lower().decode(errors="replace")

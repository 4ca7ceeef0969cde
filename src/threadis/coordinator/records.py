"""The records of writes over several instances, in a database that clients cannot see."""

from dataclasses import dataclass

from threadis import resp
from threadis.coordinator.links import Words, value
from threadis.coordinator.locks import Key


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one part would do; the payload of ``prepared:ID``."""

    first: int  # the instance that decides
    db: int
    keys: list[Key]  # what stays locked until it is settled
    commands: list[Words]

    def encode(self) -> bytes:
        """As one RESP array."""
        keys = [[db, key, int(exclusive)] for db, key, exclusive in self.keys]
        return resp.encode([self.first, self.db, keys, [list(words) for words in self.commands]])

    @classmethod
    def decode(cls, payload: bytes) -> "Prepared":
        """What ``encode`` or a worker has written."""
        first, db, keys, commands = value(payload)
        return cls(first, db, [(where, key, bool(alone)) for where, key, alone in keys], commands)

"""The records of writes over several instances, in a database that clients cannot see."""

from dataclasses import dataclass

from threadis import resp
from threadis.coordinator.links import Words, pack, value
from threadis.coordinator.locks import Key

_KEY = b"*3\r\n:%d\r\n$%d\r\n%s\r\n:%d\r\n"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one part would do; the payload of ``prepared:ID``."""

    first: int  # the instance that decides
    db: int
    keys: list[Key]  # what stays locked until it is settled
    commands: list[Words]

    def encode(self) -> bytes:
        """As one RESP array."""
        keys = [_KEY % (db, len(key), key, exclusive) for db, key, exclusive in self.keys]
        commands = [pack(words) for words in self.commands]
        head = (resp.integer(self.first), resp.integer(self.db))
        return resp.array([*head, resp.array(keys), resp.array(commands)])

    @classmethod
    def decode(cls, payload: bytes) -> "Prepared":
        """What ``encode`` or a worker has written."""
        first, db, keys, commands = value(payload)
        return cls(first, db, [(where, key, bool(alone)) for where, key, alone in keys], commands)

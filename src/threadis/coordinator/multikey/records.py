"""The records of two-phase commits, in a database that clients cannot see."""

from dataclasses import dataclass

from threadis import _core, resp
from threadis.coordinator.instances.links import Words, value
from threadis.coordinator.keys.locks import Key

_KEY = b"*3\r\n:%d\r\n$%d\r\n%s\r\n:%d\r\n"


@dataclass(frozen=True, slots=True)
class PreparedRecord:
    """A participant's part; the payload of ``prepared:ID``."""

    leader: int  # the instance that decides
    db: int
    keys: list[Key]  # what stays locked until it is settled
    commands: list[Words]

    def encode(self) -> _core.Packed:
        """Encode it as one RESP array."""
        keys = [_KEY % (db, len(key), key, exclusive) for db, key, exclusive in self.keys]
        head = (resp.integer(self.leader), resp.integer(self.db), resp.array(keys))
        return _core.Packed(
            self.commands, b"*4\r\n%s*%d\r\n" % (b"".join(head), len(self.commands))
        )

    @classmethod
    def decode(cls, payload: bytes) -> "PreparedRecord":
        """Decode what ``encode`` or a worker has written."""
        leader, db, keys, commands = value(payload)
        return cls(leader, db, [(where, key, bool(alone)) for where, key, alone in keys], commands)

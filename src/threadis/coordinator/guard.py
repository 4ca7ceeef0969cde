"""A user of ours that may touch only the keys a script has declared.

Servers check key permissions inside scripts, refuse before they act, and name the key in ACL LOG.
So a key that is touched without being declared is never a silent wrong answer (a key of another
instance would look empty): we see it. A guard's name is used until its first refusal, so what
ACL LOG says of it belongs to one run.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, field

import hiredis

from threadis.coordinator.links import Link, Words, value
from threadis.coordinator.locality import Group, pattern

PREFIX = b"threadis-guard-"

# What a script would see or change of one instance only.
WHOLE_KEYSPACE = (b"keys", b"scan", b"dbsize", b"randomkey", b"flushall", b"flushdb", b"swapdb")
# What cannot be done on copies: it reaches other databases, or cannot be undone.
OTHER_DATABASES = (b"select", b"move", b"copy")
NOT_ON_COPIES = (*OTHER_DATABASES, b"publish", b"spublish")


@dataclass(slots=True)
class Refusals:
    """What a script was not allowed to do."""

    keys: set[bytes] = field(default_factory=set)
    commands: set[bytes] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.keys or self.commands)


class Guard:
    """The guard of one connection; makes the commands to pipeline around a script."""

    def __init__(self) -> None:
        self.name = b""
        self._password = os.urandom(16).hex().encode()
        self._denied: Collection[bytes] = ()

    def before(
        self,
        keys: Collection[bytes],
        denied: Collection[bytes],
        local: Collection[Group] = (),
        *,
        only_reads: bool = False,
    ) -> list[Words]:
        """Build the commands that set the guard up for these keys; the first to run.

        Where the real keys are, the groups that live there are allowed; on copies they are not,
        because nobody would notice them.
        """
        patterns = [group.pattern() for group in local]
        patterns += [pattern(key) for key in keys if not any(key in group for group in local)]
        allowed = [(b"%R~" if only_reads else b"~") + found for found in patterns]
        if not self.name:
            self.name = PREFIX + os.urandom(8).hex().encode()
            rules = [b"reset", b"on", b">" + self._password, b"&*", b"+@all"]
        elif self._denied != denied:
            rules = [b"+@all"]
        else:
            return [[b"ACL", b"SETUSER", self.name, b"resetkeys", *allowed]]
        self._denied = denied
        rules += [b"-" + name for name in denied]
        return [[b"ACL", b"SETUSER", self.name, *rules, b"resetkeys", *allowed]]

    def login(self) -> Words:
        """Build the command that makes the connection the guard's."""
        return [b"AUTH", self.name, self._password]

    def refusals(self, log: bytes) -> Refusals:
        """Read what ACL LOG says of this guard."""
        found = Refusals()
        entries = value(log)
        for entry in entries if isinstance(entries, list) else []:
            is_map = isinstance(entry, dict)  # RESP3
            fields = entry if is_map else dict(zip(entry[::2], entry[1::2], strict=True))
            if fields.get(b"username") == self.name:
                kind = found.keys if fields[b"reason"] == b"key" else found.commands
                kind.add(fields[b"object"])
        return found

    async def retire(self, link: Link) -> None:
        """Forget a name that ACL LOG knows."""
        reply = value((await link.ask([b"ACL", b"DELUSER", self.name]))[0])
        if isinstance(reply, hiredis.ReplyError):
            link.is_spoilt = True
        self.name = b""

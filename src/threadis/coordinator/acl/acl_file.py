"""ACL SAVE and ACL LOAD: the users in a file, the same on all instances.

An instance checks the rules: it creates the users inside one transaction and deletes them again.
The error texts are those of a server with an ACL file.
"""

import logging
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from threadis import _core, control, own_names, resp
from threadis.coordinator.acl.users import Rules, Users
from threadis.coordinator.base.rights import setuser_rules
from threadis.coordinator.instances.links import Links, Words, value
from threadis.data import saved_settings

log = logging.getLogger(__name__)

UNSAVED: Final = resp.error(
    "ERR There was an error trying to save the ACLs. Please check the server logs for more "
    "information"
)
UNCHANGED: Final = (
    "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
)
NO_USER: Final = "should start with user keyword followed by the username."
UNKNOWN: Final = "Unknown command or category name in ACL"
REFUSAL: Final = re.compile(r"-ERR Error in ACL SETUSER modifier '(.*)': (.*)\r\n", re.DOTALL)
DEFAULT_RULES: Final = [b"on", b"nopass", b"~*", b"&*", b"+@all"]

Handler = Callable[[_core.Command], Awaitable[bytes]]


class AclFile:
    """Reads and writes the ACL file."""

    def __init__(
        self, start: control.Start, links: Links, users: Users, *, kills_all: bool
    ) -> None:
        self._path, self._folder = Path(start.acl_file), Path(start.data_dir)
        self._is_ours = start.keeps_users
        self._given = start.given_users
        self._links, self._users = links, users
        self._kills_all = kills_all  # Redis before 7.2: all but the default user

    def handlers(self) -> dict[str, Handler]:
        """Each command by its row's name."""
        return {"acl|save": self._save, "acl|load": self._load}

    def write(self) -> None:
        """Save the users; OSError if the disk refuses."""
        users = {name: setuser_rules(rules) for name, rules in self._users.rules.items()}
        saved_settings.write_users(self._path, users)
        if self._is_ours:
            before = saved_settings.read(self._folder)
            if before.users != self._given:
                saved_settings.write(
                    self._folder, saved_settings.SavedSettings(1, before.settings, self._given)
                )

    def write_ours(self) -> None:
        """CONFIG REWRITE: save the users, unless the user configured an ACL file."""
        if self._is_ours:
            self.write()

    async def _save(self, command: _core.Command) -> bytes:
        async with self._users.changing:
            try:
                self.write()
            except OSError as error:
                log.error("ACL SAVE: cannot write %s: %s", self._path, error.strerror)
                return UNSAVED
        return resp.OK

    async def _load(self, command: _core.Command) -> bytes:
        try:
            content = self._path.read_bytes()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            return resp.error(f"ERR Error loading ACLs, opening file '{self._path}': {why}")
        return await self._users.replace(command, lambda: self._judge(content), self._kills_all)

    async def _judge(self, content: bytes) -> dict[bytes, Rules] | bytes:
        """Return the file's users as the server shows them; or the errors, as a reply."""
        errors: list[tuple[int, str]] = []
        found: dict[bytes, tuple[int, Rules]] = {}
        for number, words in saved_settings.lines(content):
            if words[0] != b"user" or len(words) < 2:
                errors.append((number, f"{self._path}:{number} {NO_USER}"))
            elif re.search(rb"[\s\0]", words[1]) or own_names.is_ours(words[1]):
                name = words[1].decode(errors="replace")
                why = f"'{self._path}:{number}: username '{name}' contains invalid characters."
                errors.append((number, why))
            elif words[1] in found:
                name = words[1].decode(errors="replace")
                why = f"WARNING: Duplicate user '{name}' found on line {number}."
                errors.append((number, why))
            else:
                found[words[1]] = (number, words[2:])
        shown = await self._try([rules for _, rules in found.values()])
        for (number, _), rules in zip(found.values(), shown, strict=True):
            if isinstance(rules, str):
                errors.append((number, f"{self._path}:{number}: {rules}."))
        if errors:
            return resp.error(f"ERR {' '.join(why for _, why in sorted(errors))} {UNCHANGED}")
        users = {
            name: rules for name, rules in zip(found, shown, strict=True) if isinstance(rules, list)
        }
        users.setdefault(b"default", DEFAULT_RULES)
        return users

    async def _try(self, several: list[Rules]) -> list[Rules | str]:
        """Let the server parse rules; return what it shows, or its error."""
        if not several:
            return []
        first = self._links.any_ready()
        names = [own_names.LINE + b"%d" % number for number in range(len(several))]
        made: list[Words] = [
            [b"ACL", b"SETUSER", name, *rules] for name, rules in zip(names, several, strict=True)
        ]
        block = [[b"MULTI"], *made, [b"ACL", b"LIST"], [b"ACL", b"DELUSER", *names], [b"EXEC"]]
        replies = _core.elements((await self._links.raw(first, block))[-1])
        listed = {}
        for line in value(replies[len(names)]):
            _, name, *rules = line.split(b" ")
            listed[name] = rules
        return [
            _complaint(reply.decode(errors="replace")) if reply[:1] == b"-" else listed[name]
            for reply, name in zip(replies, names, strict=False)
        ]


def _complaint(reply: str) -> str:
    found = REFUSAL.fullmatch(reply)
    if not found:
        return reply.strip().removeprefix("-ERR ")
    is_known = found[2] != UNKNOWN
    return found[2] if is_known else f"Error in applying operation '{found[1]}': {found[2]}"

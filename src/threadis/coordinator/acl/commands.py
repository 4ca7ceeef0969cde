"""The ACL commands: clients' users as one server would show them; thREaDIS's own are hidden."""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from threadis import _core, own_names, resp
from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.acl.users import Denial, Users
from threadis.coordinator.base.databases import confine_databases
from threadis.coordinator.instances.links import Kind, Links, value
from threadis.coordinator.sessions import client_fields

Handler = Callable[[_core.Command], Awaitable[bytes]]
DEFAULT_COUNT = 10  # entries that ACL LOG shows
OUR_NAMES = re.compile(
    rb" name=" + re.escape(_core.our_prefix()) + rb"[^ ]*"
)  # of lanes, and of connections that run scripts
# Where our connections come from, with the name of an instance's socket: as of a peer that is gone
OUR_SOCKETS = re.compile(rb"id=\d+ addr=.*? laddr=.*? fd=-?\d+")
COMMAND = re.compile(rb" cmd=([^ ]*)")
DENIAL_WINDOW = 2000.0  # milliseconds between a denial and its entry, on a busy machine
OUR_FLAGS = re.compile(rb" flags=[^ ]*")
DATABASE = re.compile(rb" db=(\d+)")
ALL_ENTRIES = b"100000"  # entries asked of each instance: more than any instance keeps


class AclCommands:
    """The ACL subcommands about users."""

    def __init__(self, core: _core.Proxy, links: Links, users: Users, databases: int) -> None:
        self._core = core
        self._links, self._users, self._databases = links, users, databases

    def handlers(self) -> dict[str, Handler]:
        """Each command by its row's name."""
        return {
            "acl|setuser": self._set_user,
            "acl|deluser": self._delete_users,
            "acl|list": self._list,
            "acl|users": self._list,
            "acl|getuser": self._get_user,
            "acl|dryrun": self._dry_run,
            "acl|log": self._log,
            "acl|whoami": self._who_am_i,
        }

    async def _ask(self, command: _core.Command, args: list[bytes] | None = None) -> bytes:
        kind = Kind(command.info.resp)
        asked = args or command.args
        return (await self._links.raw(self._links.any_ready(), [asked], kind=kind))[0]

    async def _set_user(self, command: _core.Command) -> bytes:
        return self._users.refusal(command.args[2:3]) or await self._users.change(command)

    async def _delete_users(self, command: _core.Command) -> bytes:
        """ACL DELUSER: pretends that our own users do not exist."""
        return await self._users.change(command, [_visible(word) for word in command.args])

    async def _list(self, command: _core.Command) -> bytes:
        """ACL LIST and ACL USERS."""
        reply = await self._ask(command)
        if reply.startswith(b"-"):
            return reply
        shown = []
        for line in value(reply):
            head, name, *rules = line.split(b" ") if b" " in line else (b"", line)
            if not own_names.is_ours(name):
                whole = b" ".join([head, name, *self._users.visible_rules(rules)])
                shown.append(resp.bulk(whole if head else name))
        return resp.array(shown)

    async def _get_user(self, command: _core.Command) -> bytes:
        reply = await self._ask(command, [*command.args[:2], _visible(command.args[2])])
        parts = _core.elements(reply)
        for at in range(0, len(parts) - 1, 2):
            if value(parts[at]) == b"flags" and self._users.is_off(command.args[2]):
                parts[at + 1] = self._off(command.args[2], parts[at + 1])
            if value(parts[at]) == b"passwords":
                kept = [
                    p
                    for p in _core.elements(parts[at + 1])
                    if not self._users.is_own_password(value(p))
                ]
                parts[at + 1] = b"%s%d\r\n%s" % (parts[at + 1][:1], len(kept), b"".join(kept))
        head = reply[: reply.index(b"\n") + 1]
        return head + b"".join(parts) if parts else reply

    def _off(self, name: bytes, reply: bytes) -> bytes:
        """Return the flags of a disabled user; on the instances it is on, for the lanes."""
        found = _core.elements(reply)
        is_simple = found[0].startswith(b"+")
        own = [word for word in (b"off", b"nopass") if word in self._users.rules[name]]
        shown = [b"+%s\r\n" % word if is_simple else resp.bulk(word) for word in own]
        shown += [one for one in found if value(one) not in (b"on", b"off", b"nopass")]
        return b"%s%d\r\n%s" % (reply[:1], len(shown), b"".join(shown))

    async def _dry_run(self, command: _core.Command) -> bytes:
        if own_names.is_ours(command.args[2]):
            name = command.args[2].decode(errors="replace")
            return resp.error(f"ERR User '{name}' not found")
        # In the client's database: rights may be limited to some databases.
        info = command.info
        asked = [*command.args[:3], *confine_databases(command.args[3:], self._databases)]
        index, kind = self._links.any_ready(), Kind(info.resp)
        return (await self._links.raw(index, [asked], db=info.db, kind=kind))[0]

    async def _who_am_i(self, command: _core.Command) -> bytes:
        return resp.bulk(command.info.user)

    async def _log(self, command: _core.Command) -> bytes:
        """ACL LOG [count|RESET]: the entries of all instances, newest first."""
        args = command.args
        first = await self._ask(command)
        everyone = self._links.ready()
        if first.startswith((b"-", b"+")):  # wrong, or RESET
            if first == resp.OK:
                await asyncio.gather(*(self._links.raw(index, [args]) for index in everyone))
            return first
        kind, asked = Kind(command.info.resp), [*args[:2], ALL_ENTRIES]
        replies = await asyncio.gather(
            *(self._links.raw(index, [asked], kind=kind) for index in everyone)
        )
        denied = _core.denied(self._core)
        entries = [
            LogEntry(one, self._users.user_of_denial, denied, self._databases)
            for (reply,) in replies
            for one in _core.elements(reply)
        ]
        shown = sorted(
            (one for one in entries if not own_names.is_ours(one.user)),
            key=lambda one: float(one.fields[b"age-seconds"]),
        )
        merged: dict[tuple[bytes, ...], LogEntry] = {}
        for entry in shown:
            known = merged.setdefault(entry.what, entry)
            if known is not entry:
                known.count += entry.count
        _, most = await self._links.call_or_fail(everyone[0], b"CONFIG", b"GET", b"acllog-max-len")
        count = min(int(args[2]) if len(args) > 2 else DEFAULT_COUNT, int(most))
        return resp.array([one.encode() for one in list(merged.values())[:count]])


class LogEntry:
    """One entry of ACL LOG."""

    def __init__(
        self,
        reply: bytes,
        who: Callable[[bytes, Denial], bytes],
        denied: list[tuple[int, _core.ClientInfo]],
        databases: int,
    ) -> None:
        self._denied, self._databases = denied, databases
        self._head = reply[: reply.index(b"\n") + 1]
        self._parts = _core.elements(reply)
        known: dict[bytes, Any] = {}
        for at in range(0, len(self._parts), 2):
            known[value(self._parts[at])] = value(self._parts[at + 1])
        self.fields = known
        self.count: int = known[b"count"]
        self._logged_as: bytes = known[b"username"]
        self.user = who(self._logged_as, (known[b"reason"], known[b"object"]))
        self.what = (known[b"reason"], known[b"context"], known[b"object"], self.user)

    def _database(self, found: re.Match[bytes]) -> bytes:
        """Hide the database of copies: clients cannot select it."""
        return b" db=0" if own_names.is_hidden(int(found[1]), self._databases) else found[0]

    def encode(self) -> bytes:
        """Encode the entry as the server does."""
        parts = []
        for name, shown in zip(self._parts[::2], self._parts[1::2], strict=True):
            match value(name):
                case b"count":
                    shown = resp.integer(self.count)
                case b"username":
                    shown = resp.bulk(self.user)
                case b"client-info":
                    shown = resp.bulk(self._client(value(shown)))
            parts += [name, shown]
        return self._head + b"".join(parts)

    def _client(self, text: bytes) -> bytes:
        """Describe the client, if known; else show our connection as a client that has gone."""
        names = [one.partition("=")[0] for one in text.decode(errors="replace").split()]
        command = COMMAND.search(text)
        found = self._find(command[1].decode() if command else "")
        if found:
            return client_fields.line(found, names).encode()
        text = OUR_SOCKETS.sub(b"id=0 addr=?:0 laddr=?:0 fd=-1", OUR_NAMES.sub(b" name=", text))
        text = DATABASE.sub(self._database, OUR_FLAGS.sub(b" flags=N", text))
        return text.replace(b" user=" + self._logged_as, b" user=" + self.user)

    def _find(self, command: str) -> _core.ClientInfo | None:
        """Find the client that was denied this kind of thing at that moment."""
        when = time.time() * 1000 - float(self.fields[b"age-seconds"]) * 1000
        is_login = self.fields[b"reason"] == b"auth"
        commands = SCRIPTS if self.fields[b"context"] == b"lua" else {command}
        found = [
            (abs(moment - when), at)
            for at, (moment, client) in enumerate(self._denied)
            if (client.user == self.user or is_login)
            and (client.command in commands or client.command == command)
        ]
        distance, at = min(found, default=(DENIAL_WINDOW, 0))
        return self._denied[at][1] if distance < DENIAL_WINDOW else None


def _visible(name: bytes) -> bytes:
    """Return the name, or, for one of our own users, a name that does not exist."""
    return own_names.LINE + os.urandom(16).hex().encode() if own_names.is_ours(name) else name

"""CONFIG GET and SET: one configuration over many instances.

There are three kinds of directives. Some are ours (about clients): they are stored and applied
here. Some are fixed: ours, and set at start only. All others are the instances': set on all of them
or on none, and replayed to an instance that was restarted.
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import hiredis

from threadis import _core, control, resp
from threadis.config.directives import ARGUMENT_LIMIT, ARGUMENT_LIMIT_LEAST, INPUT_LIMIT_LEAST
from threadis.coordinator.acl.acl_file import AclFile
from threadis.coordinator.acl.local_only import is_allowed
from threadis.coordinator.acl.users import Users
from threadis.coordinator.base.numbers import parse_integer
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.maxmemory import Maxmemory
from threadis.coordinator.sessions import output_limits
from threadis.coordinator.sessions.output_limits import UNITS, OutputLimits
from threadis.data import saved_settings
from threadis.errors import DataError
from threadis.system.descriptors import file_limit, max_clients
from threadis.system.process import raise_file_limit

FILES_MOST: Final = 2**20  # that systems grant to a process

# Changed here, each in its own way.
OURS: Final = frozenset(
    (
        "requirepass",
        "protected-mode",
        "maxmemory",
        "maxclients",
        "maxmemory-clients",
        "client-query-buffer-limit",
        "timeout",
        "tcp-keepalive",
    )
)
# The supervisor's and the proxy's; changing one under them would break a promise. What the server
# itself calls immutable is not here: an instance refuses that in its own words.
FIXED: Final = frozenset(
    {
        "port",
        "bind",
        "bind-source-addr",
        "dir",
        "dbfilename",
        "replicaof",
        "slaveof",
        "tls-port",
    }
)


# A client that may set these can write files anywhere.
PROTECTED: Final = frozenset(("dir", "dbfilename"))


class Configuration:
    """Runs CONFIG GET, SET and REWRITE."""

    def __init__(
        self,
        start: control.Start,
        core: _core.Proxy,
        links: Links,
        users: Users,
        maxmemory: Maxmemory,
        acl_file: AclFile,
        tell: Callable[[control.ToSupervisor], None],
    ) -> None:
        self._acl_file, self._tell = acl_file, tell
        self._settings = dict(start.settings)  # all that CONFIG SET has changed
        self._given, self._folder = start.given, Path(start.data_dir)
        self._core = core
        self._maxmemory = maxmemory
        self._users = users
        self._links = links
        self._workers = len(start.workers)
        self._output_limits = OutputLimits(core, start.output_limits)
        links.limits.argument = start.argument_limit
        self._changed = {
            name.encode(): value.encode()
            for name, value in self._settings.items()
            if name not in OURS and name != output_limits.NAME
        }
        self._lock = asyncio.Lock()
        unix = [one.address for one in start.listeners if one.is_unix]
        self._protected = start.allowed["enable-protected-configs"]
        self._values: dict[str, str] = {
            "port": str(start.tcp_port),
            "bind": start.bind,
            "unixsocket": unix[0] if unix else "",
            "unixsocketperm": f"{start.unixsocketperm:o}",
            "unixsocketgroup": start.unixsocketgroup,
            "databases": str(start.databases),
            "dir": start.data_dir,
            "logfile": "",
            "pidfile": "",
            "requirepass": start.requirepass or "",
            "protected-mode": "yes" if start.protected_mode else "no",
            "maxclients": str(start.maxclients),
            "timeout": str(start.timeout),
            "tcp-keepalive": str(start.tcp_keepalive),
            "maxmemory": str(start.maxmemory),
            "maxmemory-clients": start.maxmemory_clients,
            "aclfile": start.acl_file,
            "client-query-buffer-limit": str(start.input_limit),
            **start.allowed,
        }
        core.set_limit("client-memory", self._client_memory())

    def value(self, name: str) -> str:
        """Return a directive of ours as CONFIG GET shows it."""
        return self._values[name]

    async def get(self, command: _core.Command) -> bytes:
        """CONFIG GET pattern …; the server matches the patterns, our values replace its own."""
        reply = await self._links.call(self._links.any_ready(), *command.args)
        if isinstance(reply, hiredis.ReplyError):
            return resp.error(str(reply))
        names, values = reply[::2], reply[1::2]
        items = [
            (name, self._shown(name.decode(), value.decode()).encode())
            for name, value in zip(names, values, strict=True)
        ]
        return resp.pairs(items, command.info.resp)

    def _shown(self, name: str, instance_says: str) -> str:
        if name == output_limits.NAME:
            return self._output_limits.shown(instance_says)
        return self._values.get(name, instance_says)

    async def set(self, command: _core.Command) -> bytes:
        """CONFIG SET name value …: all directives on all instances, or none."""
        words = command.args[2:]
        if len(words) % 2:
            return resp.error("ERR syntax error")
        wanted = list(zip(words[::2], words[1::2], strict=True))
        names = [name.decode(errors="replace").lower() for name, _ in wanted]
        for name in names:
            if names.count(name) > 1:
                return _failed(name, "duplicate parameter")
        found = dict(zip(names, (value for _, value in wanted), strict=True))
        for name in PROTECTED.intersection(names):
            if not is_allowed(self._protected, command.info):
                return _failed(name, "can't set protected config")
        for name in FIXED.intersection(names):
            if found[name] != await self._present(name):
                return _failed(name, _why_fixed(name))
            del found[name]  # it is what it should be
        async with self._lock:
            return await self._set(found, command.token)

    async def rewrite(self, command: _core.Command) -> bytes:
        """CONFIG REWRITE: save what CONFIG SET has changed, and the users, beside the data."""
        async with self._lock, self._users.changing:
            try:
                before = saved_settings.read(self._folder)
                settings = {
                    name: one
                    for name, one in before.settings.items()
                    if one.given == self._given.get(name, "")
                }
                settings |= {
                    name: saved_settings.Setting(value, self._given.get(name, ""))
                    for name, value in self._settings.items()
                    if name != "requirepass"  # the users have it, as a digest
                }
                saved_settings.write(
                    self._folder, saved_settings.SavedSettings(1, settings, before.users)
                )
                self._acl_file.write_ours()
            except (OSError, DataError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                return resp.error(f"ERR Rewriting config file: {why}")
        return resp.OK

    async def _present(self, name: str) -> bytes | None:
        """Return a directive as CONFIG GET shows it."""
        if name in self._values:
            return self._values[name].encode()
        names = [b"CONFIG", b"GET", name.encode()]
        reply = await self._links.call_or_fail(self._links.any_ready(), *names)
        return reply[1] if len(reply) > 1 else None

    async def _set(self, wanted: dict[str, bytes], within: int | None) -> bytes:
        try:
            ours = {n: _checked(n, v.decode()) for n, v in wanted.items() if n in OURS}
            self._make_room(int(ours.get("maxclients", 0)))
        except ValueError as error:
            return _failed(str(error.args[0]), str(error.args[1]))
        limits = wanted.pop(output_limits.NAME, b"").decode(errors="replace")
        try:
            output_limits.parse(limits.split(" ") if limits else [])
        except ValueError as error:
            return _failed(output_limits.NAME, str(error))
        theirs = {n.encode(): v for n, v in wanted.items() if n not in OURS}
        refusal = await self._set_while_limiting(theirs)
        if refusal is not None:
            return resp.error(refusal)
        for name, value in ours.items():
            self._values[name] = value
            await self._apply(name, value, within)
        self._output_limits.set(limits)
        self._note(theirs, ours, limits)
        return resp.OK

    async def _set_while_limiting(self, theirs: dict[bytes, bytes]) -> str | None:
        """Set directives on every instance, and meanwhile forward no argument that one of them
        would refuse.

        So a lower limit holds here before the instances have it, a higher one when all have it.
        """
        holds = before = self._links.limits.argument
        after = _argument_limit(theirs.get(ARGUMENT_LIMIT.encode()), before)
        self._limit_arguments(min(before, after))
        try:
            refusal = await self._set_everywhere(theirs)
            holds = before if refusal else after
            return refusal
        finally:
            self._limit_arguments(holds)

    def _limit_arguments(self, most: int) -> None:
        self._links.limits.argument = most
        self._core.set_limit(ARGUMENT_LIMIT, most)

    def _note(self, theirs: dict[bytes, bytes], ours: dict[str, str], limits: str) -> None:
        """Remember what has changed: for CONFIG REWRITE, and for the next proxy."""
        self._settings |= {n.decode(): v.decode(errors="replace") for n, v in theirs.items()}
        self._settings |= ours
        if limits:
            before = self._settings.get(output_limits.NAME, "")
            self._settings[output_limits.NAME] = f"{before} {limits}".strip()
        self._tell(control.Settings(self._settings))

    async def _apply(self, name: str, value: str, within: int | None) -> None:
        if name == "requirepass":
            await self._users.set_password(value.encode(), within)
        elif name == "protected-mode":
            self._core.set_limit(name, value == "yes")
        elif name in ("maxmemory", "maxmemory-clients"):
            if name == "maxmemory":
                await self._maxmemory.set(int(value))
            self._core.set_limit("client-memory", self._client_memory())
        else:
            self._core.set_limit(name, int(value))

    def _make_room(self, clients: int) -> None:
        """Let the proxy open enough files for so many clients; ValueError(name, why)."""
        wanted = file_limit(clients, self._links.count)
        granted = raise_file_limit(min(wanted, FILES_MOST))
        room = max_clients(granted, self._links.count, self._workers)
        if granted < wanted and clients > room:
            why = "The operating system is not able to handle the specified number of clients"
            raise ValueError("maxclients", f"{why}, try with {room}")

    def _client_memory(self) -> int:
        """Return the limit of all clients' buffers together, in bytes; 0: the default."""
        value = self._values["maxmemory-clients"]
        if value.endswith("%"):
            return int(self._values["maxmemory"]) * int(value[:-1]) // 100
        return int(value)

    async def _set_everywhere(self, theirs: dict[bytes, bytes]) -> str | None:
        """Set on every instance; if one refuses, set all back and return its reason."""
        if not theirs:
            return None
        flat = [part for item in theirs.items() for part in item]
        before = [
            await self._links.call(index, b"CONFIG", b"GET", *theirs)
            for index in range(self._links.count)
        ]
        for index in range(self._links.count):
            try:
                reply = await self._links.call(index, b"CONFIG", b"SET", *flat)
            except LinkError:
                await self._set_back(before[:index])
                raise
            if isinstance(reply, hiredis.ReplyError):
                await self._set_back(before[:index])
                return str(reply)
        self._changed.update(theirs)
        return None

    async def _set_back(self, before: list[list[bytes]]) -> None:
        for index, values in enumerate(before):
            await self._links.call(index, b"CONFIG", b"SET", *values)

    async def replay(self, index: int) -> None:
        """Send a restarted instance what has changed since the start."""
        async with self._lock:
            if self._changed:
                flat = [part for item in self._changed.items() for part in item]
                await self._links.call(index, b"CONFIG", b"SET", *flat)
            self._maxmemory.instance_restarted(index)


def _failed(name: str, why: str) -> bytes:
    return resp.error(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")


def _why_fixed(name: str) -> str:
    """Say why a directive of the supervisor or the proxy cannot be changed."""
    if name == "port":
        return "Unable to listen on this port; threadis binds its port at start"
    return "threadis controls this directive; set it at start"


def _checked(name: str, value: str) -> str:
    """Convert a value of ours to the form that CONFIG GET shows; ValueError(name, why)."""
    match name:
        case "requirepass":
            return value
        case "protected-mode":
            if value.lower() not in ("yes", "no"):
                raise ValueError(name, "argument must be 'yes' or 'no'")
            return value.lower()
        case "maxmemory":
            return str(_bytes(name, value))
        case "client-query-buffer-limit":
            limit = _bytes(name, value)
            if not INPUT_LIMIT_LEAST <= limit < 2**63:
                span = f"{INPUT_LIMIT_LEAST} and {2**63 - 1}"
                raise ValueError(name, f"argument must be between {span} inclusive")
            return str(limit)
        case "maxmemory-clients" if value.endswith("%") and value[:-1].isdigit():
            if int(value[:-1]) > 100:
                raise ValueError(name, "percentage argument must be less or equal to 100")
            return value
        case "maxmemory-clients":
            try:
                return str(_bytes(name, value))
            except ValueError:
                raise ValueError(name, "argument must be a memory or percent value") from None
        case "maxclients" | "timeout" | "tcp-keepalive":
            least, most = (1, 2**32 - 1) if name == "maxclients" else (0, 2**31 - 1)
            if parse_integer(value.encode()) is None:
                raise ValueError(name, "argument couldn't be parsed into an integer")
            if not least <= int(value) <= most:
                raise ValueError(name, f"argument must be between {least} and {most} inclusive")
            return value
    raise ValueError(name, "threadis controls this directive; set it at start")


def _bytes(name: str, value: str) -> int:
    digits = value.rstrip("bkmgBKMG")
    unit = value[len(digits) :].lower()
    if not re.fullmatch("[0-9]*", digits) or unit not in UNITS:
        raise ValueError(name, "argument must be a memory value")
    return int(digits or 0) * UNITS[unit]  # no digits are 0, as for the servers


def _argument_limit(value: bytes | None, before: int) -> int:
    """Parse the new limit; the old one if instances will refuse it."""
    try:
        wanted = before if value is None else _bytes(ARGUMENT_LIMIT, value.decode())
    except ValueError:
        return before
    return wanted if ARGUMENT_LIMIT_LEAST <= wanted < 2**63 else before

"""CLIENT LIST and CLIENT INFO: the clients are the workers', the format is the server's."""

import asyncio
import re

from threadis import _core, resp

SYNTAX_ERROR = "ERR syntax error"
INTEGER = re.compile(r"0|-?[1-9][0-9]*")


class Clients:
    """Asks the workers for their clients."""

    def __init__(self, core: _core.Proxy, fields: list[str], workers: int) -> None:
        self._core = core
        self._fields = fields
        self._workers = workers
        self._last_request = 0
        self._waiting: dict[int, list[_core.ClientList]] = {}
        self._answers: dict[int, asyncio.Future[list[_core.ClientInfo]]] = {}

    def arrived(self, answer: _core.ClientList) -> None:
        """Take a worker's answer; the last one completes the list."""
        parts = self._waiting[answer.request]
        parts.append(answer)
        if len(parts) == self._workers:
            clients = [client for part in parts for client in part.clients]
            del self._waiting[answer.request]
            self._answers.pop(answer.request).set_result(clients)

    async def all(self) -> list[_core.ClientInfo]:
        """Every client, by id."""
        self._last_request += 1
        request = self._last_request
        self._waiting[request] = []
        answer = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        self._core.list_clients(request)
        return sorted(await answer, key=lambda client: client.id)

    async def info(self, command: _core.Command) -> bytes:
        """CLIENT INFO."""
        return resp.text(f"{self._line(command.info)}\n".encode(), command.info.resp)

    async def list(self, command: _core.Command) -> bytes:
        """CLIENT LIST [TYPE type] [ID id …]; other filters are refused."""
        words = [arg.decode(errors="replace").lower() for arg in command.args[2:]]
        clients = await self.all()
        match words:
            case []:
                pass
            case ["type", kind]:
                if kind not in ("normal", "master", "replica", "slave", "pubsub", "primary"):
                    given = command.args[3].decode(errors="replace")
                    return resp.error(f"ERR Unknown client type '{given}'")
                clients = [client for client in clients if _kind(client) == kind]
            case ["id", _, *_]:
                try:
                    wanted = {_client_id(word) for word in words[1:]}
                except ValueError:
                    return resp.error("ERR Invalid client ID")
                clients = [client for client in clients if client.id in wanted]
            case [("type" | "id"), *_]:
                return resp.error(SYNTAX_ERROR)
            case _:
                return resp.error("ERR threadis: CLIENT LIST takes only TYPE or ID yet")
        lines = "".join(f"{self._line(client)}\n" for client in clients)
        return resp.text(lines.encode(), command.info.resp)

    def _line(self, client: _core.ClientInfo) -> str:
        known = _fields(client)
        return " ".join(f"{name}={known.get(name, '0')}" for name in self._fields)


def _is_subscribed(client: _core.ClientInfo) -> bool:
    return bool(client.sub or client.psub or client.ssub)


def _kind(client: _core.ClientInfo) -> str:
    return "pubsub" if _is_subscribed(client) else "normal"


def _client_id(word: str) -> int:
    """An integer as the server reads it: 0 and less are numbers, of no client."""
    if not INTEGER.fullmatch(word) or not -(2**63) <= int(word) < 2**63:
        raise ValueError(word)
    return int(word)


def _fields(client: _core.ClientInfo) -> dict[str, str]:
    """What we know, by the server's names; all else is 0."""
    flags = "".join(
        letter
        for letter, is_set in (
            ("P", _is_subscribed(client)),
            ("A", client.is_closing),
            ("U", client.is_unix),
            ("e", client.no_evict),
            ("T", client.no_touch),
        )
        if is_set
    )
    return {
        "id": str(client.id),
        "addr": client.address,
        "laddr": client.local_address,
        "fd": str(client.fd),
        "name": client.name.decode(),
        "age": str(client.age),
        "idle": str(client.idle),
        "flags": flags or "N",
        "capa": "",
        "db": str(client.db),
        "sub": str(client.sub),
        "psub": str(client.psub),
        "ssub": str(client.ssub),
        "multi": "-1",
        "qbuf": str(client.query_bytes),
        "obl": str(client.output_bytes),
        "oll": str(client.output_replies),
        "omem": str(client.output_bytes),
        "tot-mem": str(client.query_bytes + client.output_bytes),
        "events": "rw" if client.wants_write else "r",
        "cmd": client.command,
        "user": "default",
        "redir": "-1",
        "resp": str(client.resp),
        "lib-name": client.lib_name.decode(),
        "lib-ver": client.lib_version.decode(),
        "tot-net-in": str(client.total_input),
        "tot-net-out": str(client.total_output),
        "tot-cmds": str(client.total_commands),
    }

"""The proxy process: makes the Rust workers out of what the supervisor says, and runs the
coordinator beside them.

``python -m threadis.proxy FD`` is started by the supervisor; FD is its end of the control channel.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any

import hiredis

from threadis import _core, commands, control, placement
from threadis.coordinator import Coordinator
from threadis.coordinator.balance import Balance
from threadis.coordinator.links import LinkError, Links
from threadis.resp import encode

# Client buffers may take this share of the memory this process may use.
CLIENT_MEMORY_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """What ``_core.Proxy`` reads, by name; ``control.Start`` explains the fields."""

    listeners: list[tuple[int, str, bool]]
    backlog: int
    workers: list[tuple[list[int], bool]]  # CPUs; may wait awake
    placement: _core.Placement
    instance_count: int
    instance_password: bytes
    databases: int
    client_memory: int  # bytes over all workers
    protected_mode: bool
    maxclients: int
    timeout: int
    tcp_keepalive: int
    pushes_follow_replies: bool
    unsubscribing_needs_subscription: bool
    ordered_pipelines: bool
    hello2: list[tuple[bytes, bytes]]  # fields of HELLO's reply, values as RESP
    hello3: list[tuple[bytes, bytes]]
    commands: list[commands.Row]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one instance says of itself; all are the same binary."""

    commands: list[commands.Row]
    hello2: list[tuple[bytes, bytes]]
    hello3: list[tuple[bytes, bytes]]
    pushes_follow_replies: bool  # what a client publishes to itself comes behind the reply
    unsubscribing_needs_subscription: bool  # UNSUBSCRIBE without subscriptions is an error
    client_fields: list[str]  # names of the fields of CLIENT INFO, in order


def main() -> None:
    """Run the proxy until the supervisor says stop, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it and tells us
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.exit(asyncio.run(Server(channel).run()))


class Server:
    """The control channel's end, and what it set in motion."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._running: set[int] = set()
        self._finished = asyncio.Event()

    async def run(self) -> int:
        """Serve; the process's exit code."""
        reader, self._writer = await asyncio.open_connection(
            sock=self._channel, limit=control.MESSAGE_LIMIT
        )
        start = control.decode_for_proxy(await reader.readline())
        if not isinstance(start, control.Start):
            raise TypeError(f"the supervisor began with {start}")
        self._links = Links(start.instance_count, start.instance_password.encode())
        known: dict[int, control.Instance] = {}
        while len(known) < start.instance_count:
            message = control.decode_for_proxy(await reader.readline())
            if isinstance(message, control.Instance):
                known[message.index] = message
                self._links.update(message)
        facts = await self._ask_server(is_split=start.is_split)
        placed = placement_of(start)
        self._core = _core.Proxy(core_config(start, facts, placed))
        self._coordinator = Coordinator(
            start,
            self._core,
            self._links,
            facts.client_fields,
            facts.commands,
            placed,
            self._tell,
        )
        await self._coordinator.recover()
        for message in known.values():
            is_ready = message.state is control.State.READY
            self._core.set_instance(
                message.index, message.socket if is_ready else None, message.state.value
            )
        tids = self._core.start()
        self._running = set(range(len(tids)))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._core.bell(), self._read_letters)
        loop.add_signal_handler(signal.SIGTERM, self._core.stop, 5000)
        self._tell(control.Serving(tids))
        tasks = [asyncio.create_task(self._listen(reader))]
        if len(tids) > 1:
            tasks.append(asyncio.create_task(Balance(self._core, tids).run()))
        await self._finished.wait()
        for task in tasks:
            task.cancel()
        return 0

    def _tell(self, message: control.ToSupervisor) -> None:
        self._writer.write(control.encode(message))

    async def _ask_server(self, *, is_split: bool) -> ServerFacts:
        """Ask the first instance that answers."""
        while True:
            for index in range(self._links.count):
                with contextlib.suppress(LinkError):
                    return await self._ask_instance(index, is_split)
            await asyncio.sleep(0.05)

    async def _ask_instance(self, index: int, is_split: bool) -> ServerFacts:
        entries = await self._links.call(index, b"COMMAND")
        hello2 = await self._links.call(index, b"HELLO", b"2")
        hello3 = await self._links.call(index, b"HELLO", b"3")
        await self._links.call(index, b"HELLO", b"2")
        own = await self._links.call(index, b"CLIENT", b"INFO")
        unsubscribed = await self._links.call(index, b"UNSUBSCRIBE")
        says = dict(zip(hello2[::2], hello2[1::2], strict=True))
        return ServerFacts(
            commands=commands.derive(entries, is_split=is_split),
            hello2=[(hello2[at], encode(hello2[at + 1])) for at in range(0, len(hello2), 2)],
            hello3=[(name, encode(value)) for name, value in hello3.items()],
            pushes_follow_replies=pushes_follow_replies(says),
            unsubscribing_needs_subscription=isinstance(unsubscribed, hiredis.ReplyError),
            client_fields=[field.split("=")[0] for field in own.decode().split()],
        )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hear the supervisor; if it is gone, so are we."""
        while line := await reader.readline():
            match control.decode_for_proxy(line):
                case control.Instance() as instance:
                    self._links.update(instance)
                    self._coordinator.instance_changed(instance)
                case control.Stop(grace):
                    self._core.stop(int(grace * 1000))
                case control.Start():
                    raise RuntimeError("started twice")
        os._exit(1)

    def _read_letters(self) -> None:
        for letter in self._core.take():
            match letter:
                case _core.Command():
                    self._coordinator.run(letter)
                case _core.Left() | _core.Ran():
                    self._coordinator.left(letter)
                case _core.Locked():
                    self._coordinator.locks.locked(letter)
                case _core.Unsettled():
                    self._coordinator.unsettled(letter)
                case _core.Finished():
                    self._coordinator.finished()
                case _core.Strayed():
                    self._coordinator.strayed(letter)
                case _core.Overdue():
                    self._coordinator.overdue(letter)
                case _core.Heard():
                    self._coordinator.heard(letter)
                case _core.Logged():
                    self._coordinator.logged(letter)
                case _core.ClientList():
                    self._coordinator.clients.arrived(letter)
                case _core.Tally():
                    self._coordinator.tallies.arrived(letter)
                case _core.Subscribe() | _core.Subscribed() | _core.Interest():
                    self._coordinator.subscriptions(letter)
                case _core.Stopped():
                    self._running.discard(letter.worker)
                    if not self._running:
                        self._finished.set()


def pushes_follow_replies(hello: dict[bytes, Any]) -> bool:
    """Whether a client that publishes to itself reads the reply first: since Redis 7.2."""
    version = [int(part) for part in hello[b"version"].split(b".")[:2]]
    return hello[b"server"] != b"redis" or version >= [7, 2]


def core_config(start: control.Start, facts: ServerFacts, placed: _core.Placement) -> CoreConfig:
    """Put together what the workers need."""
    return CoreConfig(
        listeners=[(one.fd, one.address, one.is_unix) for one in start.listeners],
        backlog=start.tcp_backlog,
        workers=list(zip(start.workers, start.spins, strict=True)),
        placement=placed,
        instance_count=start.instance_count,
        instance_password=start.instance_password.encode(),
        databases=start.databases,
        client_memory=int(memory_bytes() * CLIENT_MEMORY_SHARE),
        protected_mode=start.protected_mode,
        maxclients=start.maxclients,
        timeout=start.timeout,
        tcp_keepalive=start.tcp_keepalive,
        pushes_follow_replies=facts.pushes_follow_replies,
        unsubscribing_needs_subscription=facts.unsubscribing_needs_subscription,
        ordered_pipelines=start.ordered_pipelines,
        hello2=facts.hello2,
        hello3=facts.hello3,
        commands=facts.commands,
    )


def placement_of(start: control.Start) -> _core.Placement:
    """Say where keys live."""
    return _core.Placement(
        [(one.first, one.last, one.instance) for one in start.slot_map],
        start.instance_count,
        [rule.parts() for rule in placement.read(start.rules)],
        start.pins,
    )


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


if __name__ == "__main__":
    main()

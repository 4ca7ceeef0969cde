"""The proxy process: creates the Rust workers, and runs the coordinator beside them.

The supervisor starts ``python -m threadis.proxy FD``; FD is its end of the control channel.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass

from threadis import _core, control, server_facts
from threadis.catalog import commands
from threadis.config import placement
from threadis.coordinator.admin.worker_balance import WorkerBalancer
from threadis.coordinator.coordinator import Coordinator
from threadis.coordinator.instances.links import Links
from threadis.coordinator.instances.tasks import Tasks
from threadis.system import logs, loops
from threadis.system.heap import Heap

log = logging.getLogger(__name__)

# Client buffers may use this share of this process's memory.
CLIENT_MEMORY_SHARE = 0.25
SWEEP = 1.0  # seconds between looks for letters without a notification
ASK_AGAIN = 0.05  # seconds, while no instance answers


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """The configuration of ``_core.Proxy``, by name; ``control.Start`` explains the fields."""

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
    input_limit: int  # bytes of one client
    argument_limit: int  # bytes of one argument
    timeout: int
    tcp_keepalive: int
    pushes_follow_replies: bool
    unsubscribing_needs_subscription: bool
    queues_nothing_when_full: bool
    asks_who_first: bool
    keeps_queue: bool
    is_valkey: bool
    ordered_pipelines: bool
    hello2: list[tuple[bytes, bytes]]  # fields of HELLO's reply, values as RESP
    hello3: list[tuple[bytes, bytes]]
    commands: list[commands.Row]


def main() -> None:
    """Run the proxy until the supervisor sends Stop, or is gone."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor gets it, and sends Stop
    logs.set_up()
    channel = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=loops.new) as runner:
        sys.exit(runner.run(ProxyMain(channel).run()))


class ProxyMain:
    """The proxy's end of the control channel, and everything that runs."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._running: set[int] = set()
        self._finished = asyncio.Event()
        self._tasks = Tasks()
        self._news = asyncio.Event()  # of an instance
        self._core: _core.Proxy | None = None
        self._coordinator: Coordinator | None = None

    async def run(self) -> int:
        """Serve; return the exit status.

        The supervisor's messages are handled from the first moment on: an instance that does not
        answer now may be another process already.
        """
        reader, self._writer = await asyncio.open_connection(
            sock=self._channel, limit=control.MESSAGE_LIMIT
        )
        start = control.decode_for_proxy(await reader.readline())
        if not isinstance(start, control.Start):
            raise TypeError(f"the supervisor began with {start}")
        self._links = Links(start.instance_count, start.instance_password.encode())
        listening = self._tasks.start(self._listen(reader), "listening to the supervisor")
        while not self._links.are_known():
            await self._next_news()
        facts = start.facts or await self._ask(is_split=start.is_split)
        placed = placement_of(start)
        self._core = core = _core.Proxy(core_config(start, facts, placed))
        self._coordinator = Coordinator(
            start, core, self._links, facts.client_fields, facts.commands, placed, self._tell
        )
        asyncio.get_running_loop().add_reader(core.bell(), self._read_letters)
        self._tasks.start(self._sweep(), "looking for letters")
        self._tasks.start(Heap().keep_small(), "giving memory back")
        await self._coordinator.recover()
        try:
            tids = core.start()
        except OSError as error:  # another process has begun to listen there
            self._tell(control.CannotServe(f"cannot listen: {error}; choose another --port"))
            await self._writer.drain()
            return 1
        self._running = set(range(len(tids)))
        gc.freeze()  # the present objects stay for ever
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, core.stop, 5000)
        self._tell(control.Serving(tids, facts))
        if len(tids) > 1:
            balancing = self._tasks.start(WorkerBalancer(core, tids).run(), "balancing the workers")
        await self._finished.wait()
        # Told to everybody at once, as systemd does, it may come now: we are about to leave
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        listening.cancel()
        if len(tids) > 1:
            balancing.cancel()
        return 0

    def _tell(self, message: control.ToSupervisor) -> None:
        self._writer.write(control.encode(message))

    async def _next_news(self, seconds: float | None = None) -> None:
        """Wait until an instance's state changes, at most so long."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def _ask(self, *, is_split: bool) -> control.ServerFacts:
        """Ask the first instance that answers, now or later."""
        while (
            facts := await server_facts.ask_any_instance(self._links, is_split=is_split)
        ) is None:
            await self._next_news(ASK_AGAIN)
        return facts

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Handle the supervisor's messages; end if it is gone."""
        try:
            while line := await reader.readline():
                self._hear(control.decode_for_proxy(line))
        except Exception:
            log.exception("a message of the supervisor could not be decoded")
        os._exit(1)

    def _hear(self, message: control.ToProxy) -> None:
        match message:
            case control.Instance():
                self._links.update(message)
                if self._coordinator:
                    self._coordinator.instance_changed(message)
                self._news.set()
            case control.Stop(grace):
                if self._coordinator:
                    self._coordinator.blocking.stop()
                if self._core:
                    self._core.stop(int(grace * 1000))
            case control.Start():
                raise RuntimeError("started twice")

    def _read_letters(self) -> None:
        """Handle the workers' letters; an error with one does not affect others."""
        if not self._core or not self._coordinator:
            return
        for letter in self._core.take():
            try:
                if isinstance(letter, _core.Stopped):
                    self._stopped(letter)
                else:
                    self._coordinator.receive(letter)
            except Exception:
                log.exception(
                    "a letter of a worker could not be handled: %s", type(letter).__name__
                )
                self._coordinator.give_up(letter)

    async def _sweep(self) -> None:
        """Look for letters without a notification: the system call for it may have failed."""
        while True:
            await asyncio.sleep(SWEEP)
            self._read_letters()

    def _stopped(self, letter: _core.Stopped) -> None:
        self._running.discard(letter.worker)
        if not self._running:
            self._finished.set()


def core_config(
    start: control.Start, facts: control.ServerFacts, placed: _core.Placement
) -> CoreConfig:
    """Build the configuration of the workers."""
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
        input_limit=start.input_limit,
        argument_limit=start.argument_limit,
        timeout=start.timeout,
        tcp_keepalive=start.tcp_keepalive,
        pushes_follow_replies=facts.pushes_follow_replies,
        unsubscribing_needs_subscription=facts.unsubscribing_needs_subscription,
        queues_nothing_when_full=facts.queues_nothing_when_full,
        asks_who_first=facts.asks_who_first,
        keeps_queue=facts.keeps_queue,
        is_valkey=facts.is_valkey,
        ordered_pipelines=start.ordered_pipelines,
        hello2=facts.hello2,
        hello3=facts.hello3,
        commands=commands.protect(facts.commands, start.allowed),
    )


def placement_of(start: control.Start) -> _core.Placement:
    """Return the placement of keys."""
    return _core.Placement(
        [(one.first, one.last, one.instance) for one in start.slot_map],
        start.instance_count,
        [rule.parts() for rule in placement.read(start.rules)],
        start.pins,
    )


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


if __name__ == "__main__":
    main()

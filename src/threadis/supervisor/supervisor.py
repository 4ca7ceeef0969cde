"""The order of things: plan, bind, lock, start the instances, start the proxy, watch, stop.

    supervisor ── instance 0 .. N-1    started and stopped together, each watched by its own task
               └─ proxy                started when the instances have answered, stopped first

All children are started from the main thread, and die with it.
"""

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable, Mapping

from threadis import __version__, control, own_names
from threadis.config.config import Config
from threadis.config.directives import ARGUMENT_LIMIT, INPUT_LIMIT
from threadis.config.values import memory
from threadis.control import State
from threadis.data import saved_settings, where
from threadis.data.data_dir import DataDir
from threadis.errors import ConfigError, DataError, ServerError
from threadis.supervisor import allocator, checks, instance_config, listeners, plan, server
from threadis.supervisor.instance import Instance
from threadis.supervisor.proxy_process import ProxyProcess
from threadis.system import orphans
from threadis.system.descriptors import file_limit, least_files, max_clients
from threadis.system.process import raise_file_limit, running

log = logging.getLogger("threadis")

SETTLE_LIMIT = 10.0  # seconds for the instances to be ready; then we serve what there is
GRACE = 5.0  # seconds for running commands to be answered at the end
BRIEF_GRACE = 0.5  # the same at SHUTDOWN
NOTHING_TO_RELOAD = (
    "received SIGHUP: ignored, no configuration is reloaded; use CONFIG SET, or restart"
)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds of a stop before another SIGINT means "at once". Programs that pass signals on may send
# two within milliseconds (``timeout``: to its child, then to the group).
INSISTING_COUNTS_AFTER = 2.0


class Supervisor:
    """One ``threadis serve``, from its start to its end."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._users = saved_settings.users(config)
        self._config, self._say = saved_settings.merge(config), say
        self._given, self._given_users = (
            saved_settings.given(config),
            saved_settings.given_users(config),
        )
        self._listeners = listeners.Listeners()
        self._data = DataDir(config.dir, instance_config.wanted(self._config))
        self._instances: list[Instance] = []
        self._proxy: ProxyProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._running: asyncio.Task[int] | None = None  # this one's ``run``
        self._may_insist = False  # it was said that SIGINT ends at once
        self._fast = asyncio.Event()  # the user does not want to wait for data to be saved
        self._grace = GRACE
        self._unsaving: list[int] = []  # instances that end without saving

    async def run(self) -> int:
        """Serve until told to stop; return the exit status."""
        self._catch_signals()
        try:
            await self._start()
            await asyncio.gather(*self._tasks)  # for ever, unless one of them fails
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            clean = await self._stop()
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # the exit status is ours
        self._say("stopped")
        return 0 if clean else 1

    def _catch_signals(self) -> None:
        loop, self._running = asyncio.get_running_loop(), asyncio.current_task()

        def on_signal(number: signal.Signals) -> None:
            if self._may_insist and number is signal.SIGINT:
                log.warning("received SIGINT: stopping at once")
                self._fast.set()
            else:
                self._begin_to_stop(number.name)

        def wake(number: int, _: object) -> None:
            loop.call_soon_threadsafe(on_signal, signal.Signals(number))

        loop.add_signal_handler(signal.SIGHUP, log.info, NOTHING_TO_RELOAD)  # any signal wakes it
        for number in STOP_SIGNALS:  # not the loop's: when it is closed they would be deadly again
            signal.signal(number, wake)
        orphans.reap(running)

    def _begin_to_stop(self, why: str) -> None:
        if self._running and not self._stopping:
            log.info("received %s: stopping", why)
            self._stopping = True
            self._running.cancel()
            asyncio.get_running_loop().call_later(INSISTING_COUNTS_AFTER, self._let_insist)

    def _let_insist(self) -> None:
        """From now on SIGINT ends at once; SIGTERM never does, as with a stock server."""
        log.warning(
            "still stopping; SIGINT (Ctrl-C) now ends at once: data that is not on disk is lost"
        )
        self._may_insist = True

    def _shut_down(self, unsaving: list[int]) -> None:
        """SHUTDOWN: like a server, answer no client any more."""
        if not self._stopping:
            self._grace, self._unsaving = BRIEF_GRACE, unsaving
            self._begin_to_stop("SHUTDOWN")

    # -- the start --

    async def _start(self) -> None:
        config = self._config
        chosen, planned = checks.server_and_plan(config)
        self._bind()
        count = len(planned.instance_cpus)
        self._data.open(count, config.placement, config.pin_database)
        if config.unixsocket:
            self._listeners.bind_unix(
                config.unixsocket, config.unixsocketperm, config.unixsocketgroup
            )
        self._describe(chosen, planned)
        self._maxclients = self._raise_file_limit(count, len(planned.worker_cpus))
        password = secrets.token_hex(32)
        await self._start_instances(chosen, planned, password)
        self._tell_allocator(chosen.environment)
        await self._check_users()
        self._forget_what_was_replaced()
        await self._start_proxy(planned, password)
        self._tell_where()

    def _bind(self) -> None:
        """Bind the TCP port; only check the Unix socket, which is bound under the data's lock."""
        config = self._config
        checks.port_or_socket(config)
        if config.port != 0:
            self._listeners.bind_tcp(config.host, config.port)

    async def _start_instances(
        self, chosen: server.ServerBinary, planned: plan.Plan, password: str
    ) -> None:
        count, placed = len(planned.instance_cpus), where.placement_of(self._data.layout)
        for index, cpus in enumerate(planned.instance_cpus):
            instance = Instance(
                index,
                cpus,
                self._config,
                chosen,
                self._data,
                password,
                count,
                placed.instance,
                self._changed,
            )
            self._instances.append(instance)
            self._tasks.append(asyncio.create_task(instance.run()))
        settled = [asyncio.create_task(one.settled.wait()) for one in self._instances]
        try:
            await asyncio.wait(settled, timeout=SETTLE_LIMIT)
        finally:
            for task in settled:
                task.cancel()
        for one in self._instances:
            one.judged.set()
        if refused := next((one.refusal for one in self._instances if one.refusal), ""):
            raise DataError(refused)
        if all(one.state in (State.RESTARTING, State.FAILED) for one in self._instances):
            first = self._instances[0]
            raise ServerError(f"no instance starts; instance 0 {first.ending}")

    async def _start_proxy(self, planned: plan.Plan, password: str) -> None:
        start = self._start_message(planned, password)
        self._proxy = ProxyProcess(
            start,
            lambda: [one.message() for one in self._instances],
            self._shut_down,
            self._was_set,
        )
        running = asyncio.create_task(self._proxy.run())
        self._tasks.append(running)
        serving = asyncio.create_task(self._proxy.serving.wait())
        try:
            await asyncio.wait([running, serving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
        if running.done():
            running.result()

    def _start_message(self, planned: plan.Plan, password: str) -> control.Start:
        config = self._config
        return control.Start(
            listeners=self._listeners.listeners,
            workers=planned.worker_cpus,
            spins=planned.spins(),
            slot_map=self._data.layout.slot_map,
            rules=self._data.layout.rules,
            pins=self._data.layout.pins,
            is_split=config.multikey == "split",
            ordered_pipelines=config.ordered_pipelines,
            instance_count=len(planned.instance_cpus),
            instance_password=password,
            data_dir=str(self._data.path),
            config_file=config.config_file,
            tcp_port=self._listeners.tcp_port,
            bind=config.host,
            unixsocketperm=config.unixsocketperm or 0,
            unixsocketgroup=config.unixsocketgroup or "",
            databases=config.databases,
            requirepass=self._shown_password(),
            users=self._users,
            given=self._given,
            given_users=saved_settings.digests(self._given_users),
            acl_file=str(saved_settings.acl_file(config).absolute()),
            keeps_users=config.aclfile is None,
            maxmemory_clients=config.set.get("maxmemory-clients", "0"),
            protected_mode=config.protected_mode,
            maxclients=self._maxclients,
            timeout=config.timeout,
            tcp_keepalive=config.tcp_keepalive,
            maxmemory=config.maxmemory,
            output_limits=config.set.get("client-output-buffer-limit", ""),
            input_limit=memory(INPUT_LIMIT, config.set.get(INPUT_LIMIT, "1gb")),
            argument_limit=memory(ARGUMENT_LIMIT, config.set.get(ARGUMENT_LIMIT, "512mb")),
            allowed={
                "enable-debug-command": config.enable_debug_command,
                "enable-module-command": config.enable_module_command,
                "enable-protected-configs": config.enable_protected_configs,
            },
            tcp_backlog=config.tcp_backlog,
        )

    def _shown_password(self) -> str | None:
        """Return the configured password, unless another one was saved since."""
        password = self._config.requirepass
        if password and self._users:
            is_known = saved_settings.hashed(b">" + password.encode()) in self._users.get(
                saved_settings.DEFAULT, []
            )
            return password if is_known else None
        return password

    def _forget_what_was_replaced(self) -> None:
        try:
            saved_settings.forget(
                self._config, self._given, saved_settings.digests(self._given_users)
            )
        except OSError as error:  # serving matters more
            log.warning("cannot write %s: %s", saved_settings.SETTINGS, error.strerror)

    async def _check_users(self) -> None:
        """Let an instance check the configured users."""
        ready = next((one for one in self._instances if one.state is State.READY), None)
        if ready is None or not self._users:
            return
        for name, rules in self._users.items():
            words = [b"ACL", b"SETUSER", own_names.CHECKED, b"reset", *rules, b"off"]
            told = [word.decode("utf-8", "surrogateescape") for word in words]
            reply = await ready.ask(*told)
            if reply is not None and reply.startswith(b"-"):
                is_given = self._given_users.get(name) == rules
                where = (
                    self._config.config_file if is_given else saved_settings.acl_file(self._config)
                )
                text = reply[1:].decode("utf-8", "replace").strip()
                raise ConfigError(f"users: {name.decode()}: {text}; fix it in {where}")
        await ready.ask("ACL", "DELUSER", own_names.CHECKED.decode())

    def _raise_file_limit(self, instances: int, workers: int) -> int:
        """Return how many clients can be served with the files that the system grants."""
        wanted = file_limit(self._config.maxclients, instances)
        granted = raise_file_limit(wanted)
        if granted >= wanted:
            return self._config.maxclients
        room = max_clients(granted, instances, workers)
        if room < 1:
            raise ConfigError(
                f"the open files that the system grants ({granted}) are not enough to start with "
                f"{instances} instances and {workers} workers; raise the limit to at least "
                f"{least_files(instances, workers)} (ulimit -n)"
            )
        if room < self._config.maxclients:
            log.warning(
                "Current maximum open files is %d. maxclients has been reduced to %d to compensate "
                "for low ulimit. If you need higher maxclients increase 'ulimit -n'.",
                granted,
                room,
            )
        return min(room, self._config.maxclients)

    # -- while it runs --

    def _changed(self, instance: Instance) -> None:
        """Report an instance's new state to the proxy."""
        if self._proxy:
            self._proxy.tell(instance.message())

    def _was_set(self, settings: dict[str, str]) -> None:
        """CONFIG SET: record at once where an instance's newest data is."""
        if appendonly := settings.get("appendonly"):
            for instance in self._instances:
                instance.log_was_set(appendonly.lower() == "yes")

    # -- what the user reads --

    def _describe(self, chosen: server.ServerBinary, planned: plan.Plan) -> None:
        self._say(f"threadis {__version__}")
        self._say(f"server   {chosen.describe()}")
        for warning in chosen.warnings():
            self._say(f"warning: {warning}")
        self._say(f"data     {self._data.path}")
        for rule in self._data.layout.rules:
            self._say(f"place    {rule}")
        for db, index in self._data.layout.pins:
            self._say(f"place    database {db} on instance {index}")
        for line in planned.render():
            self._say(f"plan     {line}")

    def _tell_allocator(self, added: Mapping[str, str]) -> None:
        """Print the allocator, once the instances run and have certainly loaded it."""
        running = next((one for one in self._instances if one.state is State.READY), None)
        if not added or running is None:
            return
        if words := allocator.describe(added, running.message().pid):
            self._say(f"memory   {words}")
        elif self._config.allocator != allocator.AUTO:
            log.warning("allocator: the instances run without %s", self._config.allocator)

    def _tell_where(self) -> None:
        for listener in self._listeners.listeners:
            self._say(f"serving  {listener.address}   (redis-cli {_reached_by(listener)})")
        for one in self._instances:
            if one.state is not State.READY:
                why = one.ending or one.state
                log.warning("instance %d is not ready yet: %s", one.index, why)

    # -- the end --

    async def _stop(self) -> bool:
        """Stop the proxy, then all instances; whether everything went well."""
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._listeners.close()
            clean = True
            if self._proxy:
                clean = await self._proxy.stop(self._grace, self._fast)
                self._proxy.close()
            ends = await asyncio.gather(
                *(
                    one.stop(self._fast, saves=one.index not in self._unsaving)
                    for one in self._instances
                )
            )
            return clean and all(ends)
        finally:
            self._data.close()


def _reached_by(listener: control.Listener) -> str:
    """Return the flags with which redis-cli on this machine connects."""
    if listener.is_unix:
        return f"-s {listener.address}"
    host, _, port = listener.address.rpartition(":")
    host = listeners.ANY_REACHED.get(host, host.strip("[]"))
    return f"-p {port}" if host == listeners.LOOPBACK else f"-p {port} -h {host}"

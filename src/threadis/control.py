"""Messages between the supervisor and the proxy.

A Unix socket pair carries one JSON message a line, both ways. The proxy inherits its end (``python
-m threadis.proxy FD``) together with the bound listeners; end of file means that the other side is
gone. Secrets are sent here, never in argv or the environment.
"""

import enum
import socket

import msgspec

from threadis.catalog.commands import Row

MESSAGE_LIMIT = 16 * 1024 * 1024  # bytes; a longer line is a bug, not a message


class State(enum.StrEnum):
    """An instance's state, as the supervisor sees it."""

    STARTING = "starting"  # the process exists, nothing has answered yet
    LOADING = "loading"  # answers, but reads its data from disk
    READY = "ready"
    STOPPED = "stopped"  # alive, but does not answer (SIGSTOP, frozen)
    RESTARTING = "restarting"  # died; a new process is on its way
    FAILED = "failed"  # given up


class Listener(msgspec.Struct, frozen=True):
    """A bound socket, inherited by the proxy, which calls ``listen`` when it can serve."""

    fd: int
    address: str  # "127.0.0.1:6379" or "/path/of.sock", as CLIENT LIST shows laddr
    is_unix: bool


class SlotRange(msgspec.Struct, frozen=True):
    """Slots ``first`` to ``last``, both included, live on ``instance``."""

    first: int
    last: int
    instance: int


class ServerFacts(msgspec.Struct, frozen=True):
    """Facts about the stock server; all instances run the same binary."""

    commands: list[Row]
    hello2: list[tuple[bytes, bytes]]  # fields of HELLO's reply, values as RESP
    hello3: list[tuple[bytes, bytes]]
    pushes_follow_replies: bool  # what a client publishes to itself comes behind the reply
    unsubscribing_needs_subscription: bool  # UNSUBSCRIBE without subscriptions is an error
    is_valkey: bool
    queues_nothing_when_full: bool  # between MULTI and EXEC, at maxmemory
    keeps_queue: bool  # CLIENT INFO shows multi=0, not -1, once MULTI was used
    asks_who_first: bool  # before AUTH unknown commands get NOAUTH, too
    client_fields: list[str]  # names of the fields of CLIENT INFO, in order


class Start(msgspec.Struct, frozen=True, tag="start"):
    """To the proxy, once, first: everything that it needs to serve."""

    listeners: list[Listener]
    workers: list[list[int]]  # one row a worker: the CPUs it may run on
    spins: list[bool]  # for each worker: it has its CPUs to itself, and may busy-wait
    slot_map: list[SlotRange]  # covers 0..16383
    rules: list[str]  # which part of a key gives its slot; see threadis.placement
    pins: list[tuple[int, int]]  # databases that live on one instance, and which
    is_split: bool  # MSET, DEL and UNLINK over several instances: each part on its own
    ordered_pipelines: bool  # a write waits for earlier writes of its pipeline elsewhere
    instance_count: int
    instance_password: str
    data_dir: str
    config_file: str | None
    tcp_port: int  # 0: none
    bind: str  # the addresses as the user wrote them
    unixsocketperm: int  # 0: by umask
    unixsocketgroup: str
    databases: int
    requirepass: str | None
    protected_mode: bool
    maxclients: int
    timeout: int  # seconds; 0: never
    tcp_keepalive: int  # seconds; 0: off
    maxmemory: int  # bytes over all instances; 0: no limit
    allowed: dict[str, str]  # enable-debug-command and its like: no, yes or local
    facts: ServerFacts | None = None  # what the first proxy has learnt of the servers
    users: dict[bytes, list[bytes]] = {}  # names and rules; none: as the instances have them
    settings: dict[str, str] = {}  # what CONFIG SET has changed since the start
    given: dict[str, str] = {}  # what the start was told of directives
    given_users: dict[str, str] = {}  # digests of what it was told of users
    acl_file: str = ""
    keeps_users: bool = True  # in a file of ours
    maxmemory_clients: str = "0"
    output_limits: str = ""  # client-output-buffer-limit, as far as it is not the default
    input_limit: int = 1024**3  # bytes; client-query-buffer-limit
    argument_limit: int = 512 * 1024**2  # bytes; proto-max-bulk-len
    tcp_backlog: int = 511  # connections that may wait to be accepted


class Instance(msgspec.Struct, frozen=True, tag="instance"):
    """To the proxy: the state of one instance; for each at start, and at each change."""

    index: int
    state: State
    socket: str  # Unix socket of the present process
    pid: int
    cpus: list[int]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """To the proxy: stop accepting, finish running commands, close every client, exit with 0."""

    grace: float  # seconds


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """From the proxy: clients are being served."""

    worker_tids: list[int]  # thread ids of the workers, in order
    facts: ServerFacts  # for the next proxy


class CannotServe(msgspec.Struct, frozen=True, tag="cannot-serve"):
    """From the proxy, before it ends: what the user has to fix."""

    why: str


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """From the proxy: a client has sent SHUTDOWN, and is allowed to."""

    unsaving: list[int]  # instances that end without saving: NOSAVE, or they have just saved


class Users(msgspec.Struct, frozen=True, tag="users"):
    """From the proxy: the present users, for the next proxy."""

    rules: dict[bytes, list[bytes]]


class Settings(msgspec.Struct, frozen=True, tag="settings"):
    """From the proxy: what CONFIG SET has changed since the start, for the next proxy."""

    values: dict[str, str]


ToProxy = Start | Instance | Stop
ToSupervisor = Serving | CannotServe | Shutdown | Users | Settings


def pair() -> tuple[socket.socket, socket.socket]:
    """Create a control channel; return the supervisor's end and the proxy's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def encode(message: ToProxy | ToSupervisor) -> bytes:
    """Encode a message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_for_proxy(line: bytes) -> ToProxy:
    """Decode a message to the proxy; msgspec.ValidationError if it is invalid."""
    message: ToProxy = msgspec.json.decode(line, type=ToProxy)
    return message


def decode_for_supervisor(line: bytes) -> ToSupervisor:
    """Decode a message to the supervisor; msgspec.ValidationError if it is invalid."""
    message: ToSupervisor = msgspec.json.decode(line, type=ToSupervisor)
    return message

"""The Rust data path; this file is the whole boundary, and stubtest checks it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

class KeyRow(Protocol):
    """Where keys are; see ``threadis.commands.KeySpec``."""

    @property
    def index(self) -> int: ...
    @property
    def keyword(self) -> str: ...
    @property
    def start_from(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def is_count(self) -> bool: ...
    @property
    def number(self) -> int: ...
    @property
    def first(self) -> int: ...

class CommandRow(Protocol):
    """One row of the command table; see ``threadis.commands.Row``."""

    @property
    def name(self) -> str: ...
    @property
    def arity(self) -> int: ...
    @property
    def no_auth(self) -> bool: ...
    @property
    def may_replicate(self) -> bool: ...
    @property
    def needs_memory(self) -> bool: ...
    @property
    def writes(self) -> bool: ...
    @property
    def feeds(self) -> bool: ...
    @property
    def streams(self) -> bool: ...
    @property
    def multi_refusal(self) -> str: ...
    @property
    def protection(self) -> str: ...
    @property
    def is_open_to_local(self) -> bool: ...
    @property
    def needs_coordinator(self) -> bool: ...
    @property
    def ends_multi(self) -> bool: ...
    @property
    def blocks(self) -> bool: ...
    @property
    def is_logged(self) -> bool: ...
    @property
    def is_shown(self) -> bool: ...
    @property
    def touches_keys(self) -> bool: ...
    @property
    def route(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def keys(self) -> Sequence[KeyRow]: ...
    @property
    def special_words(self) -> Sequence[str]: ...
    @property
    def words_until(self) -> str: ...
    @property
    def traits(self) -> Sequence[str]: ...
    @property
    def refusal(self) -> str: ...

class ProxyConfig(Protocol):
    """Everything the workers need; see ``threadis.proxy.CoreConfig``."""

    @property
    def listeners(self) -> Sequence[tuple[int, str, bool]]: ...
    @property
    def backlog(self) -> int: ...
    @property
    def workers(self) -> Sequence[tuple[Sequence[int], bool]]:
        """For each worker: its CPUs, and whether it may wait awake."""
    @property
    def placement(self) -> Placement: ...
    @property
    def instance_count(self) -> int: ...
    @property
    def instance_password(self) -> bytes: ...
    @property
    def databases(self) -> int: ...
    @property
    def client_memory(self) -> int: ...
    @property
    def protected_mode(self) -> bool: ...
    @property
    def maxclients(self) -> int: ...
    @property
    def input_limit(self) -> int: ...
    @property
    def argument_limit(self) -> int: ...
    @property
    def timeout(self) -> int: ...
    @property
    def tcp_keepalive(self) -> int: ...
    @property
    def pushes_follow_replies(self) -> bool: ...
    @property
    def unsubscribing_needs_subscription(self) -> bool: ...
    @property
    def queues_nothing_when_full(self) -> bool: ...
    @property
    def asks_who_first(self) -> bool: ...
    @property
    def keeps_queue(self) -> bool: ...
    @property
    def is_valkey(self) -> bool: ...
    @property
    def ordered_pipelines(self) -> bool: ...
    @property
    def hello2(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def hello3(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def commands(self) -> Sequence[CommandRow]: ...

@final
class ClientInfo:
    """One client as CLIENT LIST shows it; ages in seconds, sizes in bytes."""

    @property
    def id(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def local_address(self) -> str: ...
    @property
    def fd(self) -> int: ...
    @property
    def name(self) -> bytes: ...
    @property
    def user(self) -> bytes: ...
    @property
    def lib_name(self) -> bytes: ...
    @property
    def lib_version(self) -> bytes: ...
    @property
    def age(self) -> int: ...
    @property
    def idle(self) -> int: ...
    @property
    def is_unix(self) -> bool: ...
    @property
    def is_closing(self) -> bool: ...
    @property
    def no_evict(self) -> bool: ...
    @property
    def no_touch(self) -> bool: ...
    @property
    def is_blocked(self) -> bool: ...
    @property
    def can_redirect(self) -> bool: ...
    @property
    def db(self) -> int: ...
    @property
    def resp(self) -> int: ...
    @property
    def query_bytes(self) -> int: ...
    @property
    def output_bytes(self) -> int: ...
    @property
    def output_replies(self) -> int: ...
    @property
    def wants_write(self) -> bool: ...
    @property
    def command(self) -> str: ...
    @property
    def total_input(self) -> int: ...
    @property
    def total_output(self) -> int: ...
    @property
    def total_commands(self) -> int: ...
    @property
    def sub(self) -> int: ...
    @property
    def psub(self) -> int: ...
    @property
    def ssub(self) -> int: ...
    @property
    def is_monitor(self) -> bool: ...
    @property
    def place(self) -> tuple[int, int, int]:
        """Its worker, its place there, and which client had that place."""
    @property
    def is_tracking(self) -> bool: ...
    @property
    def tracks_all(self) -> bool: ...
    @property
    def is_redirect_broken(self) -> bool: ...
    @property
    def is_caching(self) -> bool: ...
    @property
    def redirect(self) -> int: ...
    @property
    def multi(self) -> int | None: ...
    @property
    def in_multi(self) -> bool:
        """Between MULTI and EXEC, or EXEC runs."""
    @property
    def is_queueing(self) -> bool:
        """Commands wait for EXEC."""
    @property
    def queued_db(self) -> int:
        """The database in which the next of them will run: where a SELECT before it leads."""
    @property
    def watched(self) -> int: ...
    @property
    def is_dirty(self) -> bool: ...
    @property
    def keeps_queue(self) -> bool: ...
    @property
    def rights(self) -> int: ...
    def but(self, is_blocked: bool, watched: int, is_dirty: bool) -> ClientInfo:
        """Return it with what only the coordinator knows: whether its command waits, how many
        keys it watches, and whether one of them has changed.
        """

@final
class Command:
    """A command that a worker gave to the coordinator; ``Proxy.reply`` answers it."""

    @property
    def worker(self) -> int: ...
    @property
    def place(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def info(self) -> ClientInfo: ...
    @property
    def args(self) -> list[bytes]: ...
    @property
    def queued(self) -> list[list[bytes]] | None:
        """EXEC: what was queued; None if something was refused."""
    @property
    def token(self) -> int | None:
        """The lock on everything under which it runs, inside EXEC."""
    @property
    def is_question(self) -> bool:
        """May it run? ``Proxy.judge`` answers."""
    @property
    def long(self) -> list[tuple[list[bytes], int, Pieces]]:
        """Words that are still to be put in their places: the list, the index, the word."""

@final
class Strayed:
    """A script that a worker ran has touched what it may not; ``KnownScripts.answer`` it."""

    @property
    def worker(self) -> int: ...
    @property
    def place(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def script(self) -> bytes:
        """As it was learnt."""
    @property
    def guard(self) -> bytes:
        """As whom it ran."""
    @property
    def log(self) -> bytes:
        """What ACL LOG says."""

@final
class Overdue:
    """A script that a worker runs takes too long (``is_so``), or has ended."""

    @property
    def instance(self) -> int: ...
    @property
    def is_so(self) -> bool: ...

@final
class Heard:
    """An instance has said something of its keys: "pong", "everything" or "lost"."""

    @property
    def instance(self) -> int: ...
    @property
    def what(self) -> str: ...

@final
class SentTooMuch:
    """A client was closed: it sent more than ``client-query-buffer-limit`` lets us keep."""

    @property
    def info(self) -> ClientInfo: ...

@final
class Logged:
    """``Proxy.take_logged`` has something."""

@final
class ClientList:
    """A worker's answer to ``Proxy.list_clients``."""

    @property
    def request(self) -> int: ...
    @property
    def clients(self) -> list[ClientInfo]: ...

@final
class Left:
    """A client that the coordinator knows has ended its side, or is gone altogether."""

    @property
    def worker(self) -> int: ...
    @property
    def place(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def is_gone(self) -> bool: ...

@final
class Ran:
    """A client has run what ``Proxy.run_queued`` gave it."""

    @property
    def worker(self) -> int: ...
    @property
    def place(self) -> int: ...
    @property
    def generation(self) -> int: ...

@final
class Waits:
    """Keys for which clients wait: what writes or reads them comes to the coordinator."""

    def __new__(cls, proxy: Proxy) -> Waits: ...
    def add(self, db: int, key: bytes) -> None:
        """Take note that someone waits for a key."""
    def remove(self, db: int, key: bytes) -> None:
        """Take note that he does no more."""
    def beginning(self, db: int, prefix: bytes) -> list[bytes]:
        """The keys that begin so for which someone waits, in their order."""
    def confirm(self, command: Command) -> None:
        """Say that a blocking command is known: from here on ``add`` counts."""

@final
class LockTable:
    """The lock table, which workers use, too."""

    def __new__(cls, proxy: Proxy) -> LockTable: ...
    def ask(
        self,
        keys: Sequence[tuple[int, bytes, bool]],
        everything: bool,
        instances: Sequence[int],
        is_told: bool,
        spares_doubts: bool,
    ) -> tuple[int, bool]:
        """Ask for a lock on keys (database, key, exclusive) or on everything, maybe but for keys in
        doubt.

        Returns its token, and whether it holds already. Else a ``Locked`` follows, once nothing is
        in flight to these instances that could miss it. Of one that ``is_told`` workers let their
        clients wait for the keys.
        """
    def doubt(self, token: int, keys: Sequence[tuple[int, bytes, bool]], instance: int) -> None:
        """Let a lock that is held keep only these of its keys, and nobody wait for them: what
        becomes of them is known only when the instance is back.
        """
    def waits_for(self, token: int) -> int | None:
        """Name the instance that must be back before a lock can hold, if there is one."""
    def release(self, token: int) -> None:
        """End a lock, or the wait for one."""
    def count(self) -> int:
        """How many are held or waited for."""

@final
class Locked:
    """A lock holds: nothing is in flight that could miss it."""

    @property
    def token(self) -> int: ...

@final
class WorkerCommits:
    """What workers have written on several instances."""

    def __new__(cls, proxy: Proxy) -> WorkerCommits: ...
    def prefix(self) -> bytes:
        """What the names of this process's begin with."""
    def take_finished(self, first: int) -> list[bytes]:
        """Take the names of some that are done but for the record on this instance."""
    def records_of(self, instance: int) -> int:
        """How many records an instance had of those that are done."""

@final
class Unsettled:
    """A worker's commit that went wrong, or of which it is not known how far it came."""

    @property
    def token(self) -> int | None:
        """Its lock, to be ended when it is settled; none if only its records are left."""
    @property
    def name(self) -> bytes: ...
    @property
    def first(self) -> int:
        """The instance that decides."""
    @property
    def others(self) -> list[int]:
        """Those that may have prepared something."""
    @property
    def lanes(self) -> list[tuple[int, bytes]]:
        """Connections on which something may be on its way: instance, and name in CLIENT LIST."""

@final
class Finished:
    """Records of finished commits wait to be deleted."""

@final
class Tally:
    """A worker's answer to ``Proxy.tally``."""

    @property
    def request(self) -> int: ...
    @property
    def commands(self) -> list[tuple[str, int, int, int]]:
        """By row name: calls, rejected, failed."""
    @property
    def errors(self) -> list[tuple[bytes, int]]:
        """By kind."""

@final
class Subscribe:
    """A client subscribes to names; ``Proxy.subscribe`` goes on once the instances know them."""

    @property
    def worker(self) -> int: ...
    @property
    def place(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def names(self) -> list[bytes]: ...

@final
class Subscribed:
    """A ``Proxy.subscribe`` was done, or the client is gone."""

    @property
    def ticket(self) -> int: ...

@final
class Interest:
    """Names got their first subscriber, or lost their last one."""

    @property
    def kind(self) -> int: ...
    @property
    def names(self) -> list[bytes]: ...
    @property
    def is_wanted(self) -> bool: ...

@final
class Said:
    """An instance has answered a PING where it publishes; no number: it has refused what was sent,
    because it is busy, or the connection is lost.
    """

    @property
    def instance(self) -> int: ...
    @property
    def pong(self) -> int | None: ...
    @property
    def is_busy(self) -> bool: ...

@final
class Stopped:
    """A worker's thread has ended."""

    @property
    def worker(self) -> int: ...

@final
class Proxy:
    """The workers."""

    def __new__(cls, config: ProxyConfig) -> Proxy:
        """Check the configuration; raises ValueError, OSError. Owns the listeners from here on."""
    def start(self) -> list[int]:
        """Listen and start the workers; their thread ids."""
    def bell(self) -> int:
        """A descriptor that is readable while ``take`` has something."""
    def take(
        self,
    ) -> list[
        Command
        | ClientList
        | Left
        | Finished
        | Heard
        | Locked
        | Overdue
        | Strayed
        | Logged
        | SentTooMuch
        | Ran
        | Subscribe
        | Subscribed
        | Interest
        | Said
        | Stopped
        | Tally
        | Unsettled
    ]:
        """What workers ask and tell, oldest first."""
    def reply(
        self,
        command: Command,
        data: bytes,
        db: int | None = None,
        watching: bool | None = None,
        monitoring: bool = False,
    ) -> None:
        """Answer a command with one reply in the client's protocol; change its session."""
    def run_queued(
        self,
        command: Command,
        queued: tuple[Sequence[Sequence[bytes]], int],
        known: tuple[Sequence[bytes | None], int],
        token: int,
    ) -> None:
        """Answer EXEC: the worker runs these as if they came now, then says ``Ran``.

        So many more commands are to come then, by another call. ``known`` has the replies to those
        that have run already, and may be shorter; and how many microseconds each of them took.
        """
    def find(self, args: Sequence[bytes]) -> tuple[str, list[list[bytes]]] | None:
        """Look a command up: row name; for each key specification, the arguments that are keys."""
    def subscribe(self, request: Subscribe, ticket: int, is_refused: bool) -> None:
        """Tell the client that asked that it is subscribed, or that a script runs too long; a
        ``Subscribed`` with this ticket follows."""
    def subscriptions(self) -> list[int]:
        """How many channels, patterns and sharded channels have subscribers."""
    def set_output_limit(self, class_: str, hard: int, soft: int, seconds: int) -> None:
        """Change client-output-buffer-limit of "normal" or "pubsub"; raises ValueError."""
    def set_instance(self, index: int, socket: str | None, why: str) -> None:
        """Say where an instance listens, or (without a socket) why it cannot be reached."""
    def take_logged(
        self,
    ) -> list[
        tuple[
            tuple[bytes, bytes],
            list[bytes],
            tuple[int, int, int, int],
            list[tuple[int, list[bytes]]],
        ]
    ]:
        """Take what workers tell the logs, oldest first: address and name of the client; the
        command as servers log it; when it ended (seconds), microseconds that it took at most,
        bytes of its request and its reply; what each instance has seen of it."""
    def dropped_logged(self) -> int:
        """Tell how many of these were dropped because too many waited."""
    def set_busy(self, instance: int | None, words: str) -> None:
        """Tell where a script runs too long: that instance answers PING; others hear its words."""
    def judge(
        self, command: Command, refusal: bytes | None, user: tuple[bytes, int] | None
    ) -> None:
        """Answer a question: may the command run, or else its reply; who the client is now."""
    def set_user(self, name: bytes, id: int | None) -> None:
        """Say what a user may do: 0 everything, else lanes of its own by this number; None: there
        is no such user any more."""
    def set_open(self, is_open: bool) -> None:
        """Say whether a new connection may go on without a password."""
    def is_tight(self) -> bool:
        """Whether an instance is near its limit of memory, or has said so to a worker."""
    def set_limit(self, name: str, value: int) -> None:
        """Change maxclients, timeout, tcp-keepalive, protected-mode, log-slow, client-memory,
        client-query-buffer-limit, proto-max-bulk-len,
        newcomers-worker (which gets new connections) or newcomers-room (how many, at most)."""
    def stats(self) -> list[dict[str, int]]:
        """Counters of each worker, as of its last turn."""
    def connected(self) -> int:
        """How many clients are connected."""
    def list_clients(self, request: int, ids: Sequence[int] | None) -> None:
        """Ask each worker for a ``ClientList`` of this number: its clients, or those with ids,
        which are in order."""
    def tally(self, request: int, reset: bool) -> None:
        """Ask each worker for a ``Tally`` of this number, and maybe to begin a new one."""
    def set_pause(self, what: int) -> None:
        """Hold commands back: 0 none, 1 those that write, 2 all; who waits already tries again."""
    def confine(self, user: bytes, channels: Sequence[bytes]) -> None:
        """Close clients of a user that listen to channels that no such pattern matches."""
    def kill_clients(self, ids: Sequence[int], after_replies: bool) -> None:
        """Close clients, at once or after what they are owed."""
    def give(self, worker: int, to: int, permille: int) -> None:
        """Let a worker give clients with so many thousandths of its load to another."""
    def stop(self, grace: int) -> None:
        """Stop accepting, answer what runs for at most ``grace`` milliseconds, end."""

@final
class Replies:
    """What a connection to an instance has received, reply by reply."""

    def __new__(cls, pushes: bool = False) -> Replies: ...
    def feed(self, data: bytes) -> None:
        """Add what was read."""
    def take(self, count: int) -> list[bytes | Pieces]:
        """Take so many complete replies, or as many as there are; raises ValueError."""
    def next(self) -> bytes | Pieces | None:
        """Take the next complete reply, as it came; raises ValueError if it cannot be one."""
    def until(self, mark: bytes) -> bytes | Pieces | None:
        """Take what comes before a mark, once that has come, and drop the mark."""
    def has(self, text: bytes) -> bool:
        """Whether this is in what has come and was not taken."""
    def __len__(self) -> int:
        """How many bytes have come that were not taken."""

@final
class Pieces:
    """Something long, piece by piece: nobody need wait until all of it is copied."""

    def __iter__(self) -> Pieces: ...
    def __next__(self) -> bytes: ...

@final
class Packed:
    """Commands in canonical form, behind a head; long words are not copied."""

    def __new__(
        cls, commands: Sequence[Sequence[bytes | Packed]], head: bytes | None = None
    ) -> Packed:
        """A word that is packed itself is the bytes of that."""
    def __len__(self) -> int:
        """How many bytes."""
    def __bytes__(self) -> bytes:
        """All of them."""
    def part(self, begin: int, length: int) -> bytes:
        """So many bytes from there on, or as many as there are."""

@final
class EventFeeds:
    """The connections on which instances publish: scripts, modules, keyspace events."""

    def __new__(cls, proxy: Proxy) -> EventFeeds: ...
    def marks(self) -> bytes:
        """The channel of marks, which say what becomes of the events that follow."""
    @staticmethod
    def events() -> bytes:
        """Our own subscription to events of all databases."""
    @staticmethod
    def concerns_events(kind: int, name: bytes) -> bool:
        """Whether keyspace events may be heard by a name of this kind."""
    def open(self, instance: int, fd: int) -> None:
        """Read and write a connection; the core owns the descriptor from here."""
    def close(self, instance: int) -> None:
        """End it."""
    def send(self, instance: int, commands: bytes) -> bool:
        """Send commands; False if the rest must be sent later, by another call."""
    def hear(self, instance: int) -> None:
        """Read what an instance has published."""
    def tells_events(self) -> bool:
        """Whether somebody listens to keyspace events, and there are any."""
    def keep(self, id: int) -> None:
        """Keep the events that are marked with this number."""
    def add(self, id: int, step: int, kind: int, channel: bytes, payload: bytes) -> None:
        """Add one that nobody has told, or a message."""
    def add_end(self, id: int, channel: bytes, payload: bytes) -> None:
        """Add the event that a key has expired, behind everything."""
    def add_first(self, id: int, db: int, key: bytes, channel: bytes, payload: bytes) -> None:
        """Add the same of a lent key that had expired before the command came to it, unless its
        instance tells.
        """
    def lend(self, id: int, db: int, keys: Sequence[bytes]) -> None:
        """Keep that one of these keys, which a command lends, expires meanwhile."""
    def give_back(self, id: int, db: int, keys: Sequence[bytes]) -> None:
        """Tell that: it has not lent them."""
    def settle(self, id: int, db: int, key: bytes) -> None:
        """Do not tell that what a command has lent, and writes, has expired."""
    def receivers(self, kind: int, channel: bytes) -> int:
        """Count who would receive a message."""
    def tell(self, id: int) -> None:
        """Tell what was kept, step by step."""
    def forget(self, id: int) -> None:
        """Forget what was kept; tell that lent keys have expired."""

@final
class Lines:
    """What MONITOR shows on an instance; clients get the lines about commands of their scripts."""

    def __new__(cls, proxy: Proxy, databases: int, mark: bytes) -> Lines:
        """``mark`` is in each script of ours."""
    def feed(self, data: bytes) -> None:
        """Pass on what is complete."""
    def settle(self, number: int, db: int | None) -> None:
        """Say what has become of a call: its client's database, or None if it does not count."""
    def take_call(self, number: int, db: int) -> bytes | None:
        """Take the lines of a call that counts; None if more may come."""
    def hand_over(self, command: Command, lines: Sequence[tuple[int, bytes]]) -> None:
        """Give what scripts of a transaction have run, by their places in it, to the worker that
        shows it; the reply comes next."""

@final
class KnownScripts:
    """The scripts that workers may run: they touch the keys they declare, on one instance."""

    def __new__(cls, proxy: Proxy, rules: Sequence[bytes]) -> KnownScripts:
        """``rules`` say what guards may do besides their keys."""
    def learn(self, script: bytes, is_local: bool) -> None:
        """Let workers run a script (SHA1 or text), which may touch its keys' hash tags, too."""
    def forget(self, script: bytes) -> None:
        """Let them no more."""
    def forget_all(self) -> None:
        """Let them run nothing: SCRIPT FLUSH."""
    def was_used(self, script: bytes) -> bool:
        """Whether a worker has run it since this was asked last."""
    def set_limit(self, milliseconds: int) -> None:
        """Say after how long a script is ``Overdue``; 0: not known, workers run nothing."""
    def answer(self, strayed: Strayed, reply: bytes) -> None:
        """Answer the client of a script that strayed."""

@final
class Trackers:
    """The clients that track."""

    def __new__(cls, proxy: Proxy) -> Trackers: ...
    def track(
        self,
        command: Command,
        prefixes: Sequence[bytes] | None,
        flags: Sequence[str],
        redirect: tuple[int, int, int, int] | None,
    ) -> None:
        """Track keys with these prefixes, or what the client reads; tell it, or ``redirect``.

        Flags are optin, optout, noloop, and caching for one command.
        """
    def untrack(self, command: Command) -> None:
        """End it."""
    def listen(self, instance: int, fd: int) -> None:
        """Listen to an instance; owns the descriptor from here on."""
    def hush(self, instance: int) -> None:
        """Listen no more."""
    def ping(self, instance: int) -> bool:
        """Ask for a ``Heard`` "pong", behind all that was said; False if none can come."""
    def hear(self) -> None:
        """Read what instances have said."""
    def begin_changes(
        self, ticket: int, keys: Sequence[bytes], owner: tuple[int, int] | None
    ) -> None:
        """Keep what is said of these keys; the owner (id) may cause so many sayings of each."""
    def end_changes(self, ticket: int, gone: Sequence[bytes], read: Sequence[bytes]) -> None:
        """Tell it now, in the order of the keys; but not to the owner, unless a key is gone.

        Of what the owner has read behind its changes it is told when that changes again.
        """
    def begin_reading(self, ticket: int) -> None:
        """Note which keys change, until it is known which have been read."""
    def end_reading(self, ticket: int, id: int, keys: Sequence[bytes]) -> None:
        """Tell a client of those of these keys, which it has read, that have changed meanwhile."""
    def changed(self, keys: Sequence[bytes]) -> None:
        """Tell of keys that have changed although no instance says so."""
    def remember(self, id: int, keys: Sequence[bytes]) -> list[bytes]:
        """Remember that a client reads keys; those that are new."""
    def forget(self, id: int, keys: Sequence[bytes]) -> None:
        """It did not after all."""
    def invalidate_all(self) -> None:
        """Say that any key may have changed."""
    def counts(self) -> tuple[int, int, int, int]:
        """Tell how many clients, keys, readers of keys, and prefixes there are."""
    def set_max_keys(self, most: int) -> None:
        """Change how many keys are remembered; 0: any number."""

@final
class Placement:
    """Where keys live: slot map, placement rules, pinned databases."""

    def __new__(
        cls,
        slot_map: Sequence[tuple[int, int, int]],
        instances: int,
        rules: Sequence[tuple[Sequence[bytes], tuple[int, int], tuple[int, int]]] = ...,
        pins: Sequence[tuple[int, int]] = ...,
    ) -> Placement: ...
    def slot(self, key: bytes) -> int:
        """Tell the slot of a key, unless its database is pinned."""
    def instance(self, db: int, key: bytes) -> int:
        """Tell the instance of a key in a database."""
    def instances(self, db: int, keys: Sequence[bytes]) -> list[int]:
        """Tell the instances of many keys in a database."""
    def part(self, key: bytes) -> tuple[int, int, int | None]:
        """Tell begin and end of what decides about a key, and the number of the rule."""

def elements(reply: bytes) -> list[bytes]:
    """Split an array, set or map into its elements, as they came; raises ValueError."""

def bounds(reply: bytes) -> list[tuple[int, int]]:
    """Tell where each of these begins and ends; others may go on meanwhile."""

def is_reply(text: bytes) -> bool:
    """Whether this is one reply, and nothing else."""

def build_profile() -> str:
    """Say "release" or "debug"."""

def glob_matches(pattern: bytes, text: bytes) -> bool:
    """Whether a pattern of the server's kind (KEYS, PSUBSCRIBE, ACL) matches."""

def record_prefix(kind: str) -> bytes:
    """What names of records begin with: "prepared", "decided", "waited" or "swept"."""

def denied(proxy: Proxy) -> list[tuple[int, ClientInfo]]:
    """Tell which clients were denied something, each with Unix milliseconds, oldest first."""

def note_denied(proxy: Proxy, client: ClientInfo) -> None:
    """Take note that a client was just denied its command."""

def our_prefix(kind: str | None = None) -> bytes:
    """What names of our users and connections of a kind begin with; all of them, without a kind.

    "admin", "guard", "lane", "script", "checked" or "line".
    """

def is_our_name(name: bytes) -> bool:
    """Whether a user or a connection is ours."""

def unique_name() -> bytes:
    """Name what nothing else is called: the rest of a record's name."""

def is_our_channel(name: bytes) -> bool:
    """Whether a channel is ours."""

def is_record(key: bytes) -> bool:
    """Whether a key is one of our records."""

def slot(key: bytes) -> int:
    """Compute the slot of a key."""

def run_load(config: object, connected: Callable[[], None]) -> dict[str, Any]:
    """Run one load; reads the attributes of ``threadis.bench.load.Load``; raises OSError."""

def preload_keys(config: object) -> dict[str, Any]:
    """Write a valid value to every key; raises OSError if one is not taken."""

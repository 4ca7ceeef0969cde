"""Histories of concurrent clients: can all of it have happened, one command after the other?

Clients work on few keys at the same time, by single commands and by pipelines: registers, counters
and queues of one key; and groups of keys on several instances, which are one thing to MSET, RENAME,
scripts and transactions. Meanwhile instances and the proxy are killed, and instances stopped.
"""

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Threadis
from faults import stopped
from linearizability import (
    Command,
    NotLinearizableError,
    Operation,
    State,
    apply,
    check,
)
from raw import Raw, command, owner
from threadis.supervisor.server import ServerBinary
from waiting import until

FULL = os.environ.get("THREADIS_TORTURE") == "full"
SEED = int(os.environ.get("THREADIS_SEED", "1"))
SECONDS = 120.0 if FULL else 4.0
PAUSE = 60.0  # seconds; what dies often is started again only after a while
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
INSTANCES = 4
CLIENTS = 6
USES = 60  # of one object, before the next of its kind comes: the search must have an end
UNKNOWN = (b"may or may not have run", b"will be completed")
NOT_RUN = (b"-TRYAGAIN", b"-LOADING", b"-EXECABORT")
SWAP = """
    local one, two = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
    redis.call('DEL', KEYS[1], KEYS[2])
    if one then redis.call('SET', KEYS[2], one) end
    if two then redis.call('SET', KEYS[1], two) end
    return redis.status_reply('OK')
"""
WAIT = "0.001"  # seconds
INCR = "return redis.call('INCR', KEYS[1])"
Commands = tuple[Command, ...]


def at(client: int, begin: int, end: int | None, words: str, reply: bytes | None) -> Operation:
    return Operation(client, begin, end, (tuple(words.split()),), reply)


def test_what_can_have_happened() -> None:
    check([])
    check([
        at(1, 0, 9, "SET r a", b"+OK\r\n"), at(2, 1, 8, "GET r", b"$-1\r\n"),
        at(3, 2, 7, "GET r", b"$1\r\na\r\n"), at(2, 10, 11, "GET r", b"$1\r\na\r\n"),
    ])  # fmt: skip
    # A write of unknown outcome came late; another never.
    check([
        at(1, 0, None, "SET r a", None), at(2, 1, 2, "GET r", b"$-1\r\n"),
        at(3, 1, None, "SET r b", None), at(2, 3, 4, "GET r", b"$1\r\na\r\n"),
        at(2, 5, 6, "GET r", b"$1\r\na\r\n"),
    ])  # fmt: skip


@pytest.mark.parametrize(
    "history",
    [
        # read what nobody wrote; read something old; read something new, then old
        [at(1, 0, 1, "GET r", b"$1\r\nx\r\n")],
        [
            at(1, 0, 1, "SET r a", b"+OK\r\n"), at(1, 2, 3, "SET r b", b"+OK\r\n"),
            at(2, 4, 5, "GET r", b"$1\r\na\r\n"),
        ],
        [
            at(1, 0, 9, "SET r a", b"+OK\r\n"), at(2, 1, 2, "GET r", b"$1\r\na\r\n"),
            at(2, 3, 4, "GET r", b"$-1\r\n"),
        ],
        # a lost update; a pipeline out of order; half of a MSET; a write that came twice
        [
            at(1, 0, 9, "INCR c", b":1\r\n"), at(2, 0, 9, "INCR c", b":1\r\n"),
        ],
        [
            at(1, 0, 8, "SET r a", b"+OK\r\n"), at(1, 0, 9, "SET r b", b"+OK\r\n"),
            at(2, 10, 11, "GET r", b"$1\r\na\r\n"),
        ],
        [
            at(1, 0, 9, "MSET r a s a", b"+OK\r\n"),
            Operation(2, 1, 8, (("GET", "r"), ("GET", "s")), b"*2\r\n$1\r\na\r\n$-1\r\n"),
        ],
        [
            at(1, 0, None, "RPUSH q a", None), at(2, 1, 2, "LPOP q", b"$1\r\na\r\n"),
            at(2, 3, 4, "LPOP q", b"$1\r\na\r\n"),
        ],
        # unknown, but behind a later command of the same client
        [
            at(1, 0, None, "SET r a", None), at(1, 1, 2, "SET r b", b"+OK\r\n"),
            at(2, 3, 4, "GET r", b"$1\r\na\r\n"),
        ],
    ],
)  # fmt: skip
def test_what_cannot_have_happened(history: list[Operation]) -> None:
    with pytest.raises(NotLinearizableError):
        check(history)


def test_the_search_agrees_with_trying_every_order() -> None:
    dice, verdicts = random.Random(SEED), Counter[bool]()
    for _ in range(400):
        history = guessed(dice)
        verdicts[possible(history)] += 1
        if possible(history):
            check(history)
        else:
            with pytest.raises(NotLinearizableError):
                check(history)
    assert min(verdicts.values()) > 50


def guessed(dice: random.Random) -> list[Operation]:
    """Up to five commands that overlap somehow, with replies that may be."""
    history = []
    for number in range(dice.randint(2, 5)):
        begin = dice.randrange(8)
        words, replies = dice.choice([
            (f"SET r {number}", ["+OK"]),
            ("GET r", ["$-1", f"$1\r\n{dice.randrange(5)}"]),
            ("DEL r", [":0", ":1"]),
        ])  # fmt: skip
        end = dice.choice([None, begin + dice.randint(1, 4)])
        reply = f"{dice.choice(replies)}\r\n".encode() if end else None
        history.append(at(dice.randrange(2), begin, end, words, reply))
    return sorted(history, key=lambda one: one.begin)


def possible(history: list[Operation]) -> bool:
    """The same by brute force."""
    known = [one for one in history if one.end is not None]
    unknown = [one for one in history if one.end is None]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *some]):
                if is_order(order, history) and explains(order):
                    return True
    return False


def is_order(order: tuple[Operation, ...], history: list[Operation]) -> bool:
    for earlier, later in itertools.combinations(order, 2):
        if later.end is not None and later.end < earlier.begin:
            return False
        if earlier.client == later.client and history.index(earlier) > history.index(later):
            return False
    return True


def explains(order: tuple[Operation, ...]) -> bool:
    state = State()
    for one in order:
        reply, state = apply(state, one.commands)
        if one.reply not in (None, reply):
            return False
    return True


class Object:
    """Keys that are one thing, and what was done with them."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.uses = kind, 0
        self.history: list[Operation] = []
        names = (f"{kind}:{number}:{at}" for at in itertools.count())
        if kind in ("strings", "lists"):
            homes: dict[int, str] = {}
            while len(homes) < 3:  # on three instances
                name = next(names)
                homes.setdefault(owner(name.encode(), INSTANCES), name)
            self.keys = list(homes.values())
        else:
            self.keys = [next(names)]

    def follows(self, earlier: Operation, later: Operation) -> bool:
        """Commands on different instances have no order, unless one is on several."""
        spans = any(len(one.keys) > 1 for one in (earlier, later))
        return spans or bool(earlier.keys & later.keys)

    def some(self, dice: random.Random, value: str) -> Commands:
        """Something to do with it."""
        key, other = dice.choice(self.keys), dice.choice(self.keys)
        others = [one for one in self.keys if one != key]
        match self.kind:
            case "register":
                return dice.choice([
                    (("SET", key, value),), (("SET", key, value, "NX"),), (("GET", key),),
                    (("SET", key, value, "GET"),), (("DEL", key),), (("GET", key),),
                ])  # fmt: skip
            case "counter":
                return dice.choice([(("INCR", key),), (("GET", key),)])
            case "queue":
                return dice.choice([
                    (("RPUSH", key, value),), (("LPOP", key),), (("LRANGE", key, "0", "-1"),),
                    (("RPUSH", key, value),), (("BLPOP", key),),
                ])  # fmt: skip
            case "strings":
                return dice.choice([
                    (("SET", key, value),), (("GET", key),), (("SWAP", key, others[0]),),
                    (("MSET", *(word for one in self.keys for word in (one, value))),),
                    (("DEL", key, others[1]),), (("RENAME", key, others[0]),),
                    tuple(("GET", one) for one in self.keys),
                    (("SET", key, value), ("GET", others[0])),
                ])  # fmt: skip
            case _:
                return dice.choice([
                    (("RPUSH", key, value),), (("LPOP", key),),
                    (("LMOVE", key, others[0], "LEFT", "RIGHT"),),
                    (("BLPOP", *dice.sample(self.keys, 3)),), (("RPUSH", key, value),),
                    tuple(("LRANGE", one, "0", "-1") for one in self.keys),
                    (("RPUSH", key, value), ("LRANGE", other, "0", "-1")),
                ])  # fmt: skip


class Recorder:
    """Clients that work on shared objects, and what they saw."""

    def __init__(self, running: Threadis, most: int) -> None:
        self._running, self._most = running, most  # commands of one pipeline
        self._lock = threading.Lock()
        self._names = itertools.count()
        # Of a pipeline few commands are for the same object: a fault leaves them all unknown.
        kinds = KINDS * (1 if most == 1 else 4)
        self._now = [Object(kind, next(self._names)) for kind in kinds]
        self.objects = list(self._now)
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._work, args=(random.Random(SEED * 1000 + number),), daemon=True
            )
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> None:
        self._is_over.wait(seconds)

    def finish(self) -> Counter[str]:
        """Stop, and judge; how many operations there were, and of what kind."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        counts = Counter[str](objects=len(self.objects))
        for one in self.objects:
            check(one.history, one.follows)
            counts["unknown"] += sum(operation.end is None for operation in one.history)
            counts["known"] += sum(operation.end is not None for operation in one.history)
        return counts

    def _work(self, dice: random.Random) -> None:
        while not self._is_over.is_set():
            try:
                with Raw(("127.0.0.1", self._running.port)) as client:
                    number = next(self._names)
                    while not self._is_over.is_set():
                        self._one_pipeline(client, number, dice)
            except (OSError, EOFError):
                self.wait(0.02)

    def _one_pipeline(self, client: Raw, number: int, dice: random.Random) -> None:
        todo: list[tuple[Object, Commands]] = []
        for _ in range(dice.choice([1, 1, self._most])):
            one = self._take(dice.randrange(len(self._now)))
            todo.append((one, one.some(dice, str(next(self._names)))))
        begin, answered = time.monotonic_ns(), 0
        try:
            client.send(b"".join(packed(commands) for _, commands in todo))
            for one, commands in todo:
                if len(commands) > 1:
                    for _ in range(len(commands) + 1):
                        client.reply()
                reply = client.reply()
                answered += 1
                self._note(one, number, begin, commands, reply)
        finally:
            for one, commands in todo[answered:]:
                self._note(one, number, begin, commands, None)

    def _take(self, place: int) -> Object:
        with self._lock:
            one = self._now[place]
            one.uses += 1
            if one.uses == USES:
                self._now[place] = Object(one.kind, next(self._names))
                self.objects.append(self._now[place])
            return one

    def _note(
        self, one: Object, client: int, begin: int, commands: Commands, reply: bytes | None
    ) -> None:
        end: int | None = time.monotonic_ns()
        if reply is None or any(words in reply for words in UNKNOWN):
            reply = end = None
        elif reply.startswith(NOT_RUN):
            return
        with self._lock:
            one.history.append(Operation(client, begin, end, commands, reply))


KINDS = ("register", "counter", "queue", "strings", "lists")


def in_full(one: Command) -> Command:
    """Some commands are scripts: over several instances, or of one key, which a worker runs."""
    match one:
        case ("SWAP", *keys):
            return ("EVAL", SWAP, "2", *keys)
        case ("INCR", key) if random.random() < 0.5:
            return ("EVAL", INCR, "1", key)
        case ("BLPOP", *keys):
            return ("BLPOP", *keys, WAIT)
    return one


def packed(commands: Commands) -> bytes:
    """As a client sends it."""
    words = [in_full(one) for one in commands]
    if len(words) > 1:
        words = [("MULTI",), *words, ("EXEC",)]
    return b"".join(command(*one) for one in words)


@pytest.mark.torture
@pytest.mark.timeout(1800 if FULL else 60)
@pytest.mark.parametrize("most", [1, 16], ids=["one by one", "pipelines"])
def test_histories(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, most: int
) -> None:
    flags = ["--server", stock_server.path, "--instances", str(INSTANCES), "--workers", "2"]
    recorder = Recorder(threadis(*flags, "--save", ""), most)
    recorder.wait(SECONDS)
    counts = recorder.finish()
    report(f"{stock_server.kind}, at most {most} at once", counts)
    assert counts["known"] > 500 and counts["unknown"] == 0, counts


@pytest.mark.torture
@pytest.mark.timeout(1800 if FULL else 60)
@pytest.mark.parametrize("most", [1, 16], ids=["one by one", "pipelines"])
def test_histories_with_faults(threadis: Callable[..., Threadis], most: int) -> None:
    running = threadis(
        "--instances", str(INSTANCES), "--workers", "2", "--save", "", "--appendonly", "yes",
        "--set", "appendfsync=always",
    )  # fmt: skip
    recorder, dice, faults = Recorder(running, most), random.Random(SEED), Counter[str]()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        recorder.wait(dice.uniform(0.2, 0.8))
        fault = dice.choice(["kill", "kill", "stop", "proxy"])
        faults[fault] += 1
        match fault:
            case "kill":
                until(running.instance_pids, "an instance to kill", PAUSE)
                os.kill(dice.choice(running.instance_pids()), signal.SIGKILL)
            case "stop":
                until(running.instance_pids, "an instance to stop", PAUSE)
                with stopped(dice.choice(running.instance_pids())):
                    recorder.wait(dice.uniform(0.0, 1.0))
            case "proxy":
                until(running.proxy_pids, "a proxy to kill", PAUSE)
                os.kill(running.proxy_pid(), signal.SIGKILL)
    counts = recorder.finish()
    report(f"faults, at most {most} at once", counts + faults)
    assert counts["known"] > 200 and counts["unknown"] > 0, counts


def report(name: str, counts: Counter[str]) -> None:
    """Keep what a long run has seen; every history of it can have happened."""
    if FULL:
        path = RESULTS / f"torture-histories-{SEED}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, name: dict(counts)}, indent=1, sort_keys=True) + "\n")

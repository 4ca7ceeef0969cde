"""Whatever is killed: no acknowledged write is lost, none is half there, and all is back by itself.

Each writer keeps a ledger of what it was told. Processes are killed meanwhile: instances, the
proxy, the supervisor, several in the same moment. Then the data is compared with the ledgers.
"""

import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import START_LIMIT, Threadis
from raw import Raw, bulk, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

FULL = os.environ.get("THREADIS_TORTURE") == "full"
SEED = int(os.environ.get("THREADIS_SEED", "1"))
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
INSTANCES = 3
ROUNDS = 200
SAMPLE = 4
BACK_LIMIT = 60.0  # seconds until everything answers again on a busy machine
FLAGS = [
    "--instances", str(INSTANCES), "--workers", "2", "--save", "",
    "--appendonly", "yes", "--set", "appendfsync=always",
]  # fmt: skip
NOT_RUN = (b"-TRYAGAIN", b"-LOADING", b"-EXECABORT")
IN_DOUBT = b"may or may not have run"
PROMISED = b"it will be completed when it is back"
FOES = (
    "instance", "two instances", "all instances", "proxy", "instance and proxy", "all but one",
    "all",
)  # fmt: skip
TWO = b"redis.call('SET',KEYS[1],ARGV[1]) redis.call('SET',KEYS[2],ARGV[1]) return ARGV[1]"

Start = Callable[..., Threadis]


class NotRunError(Exception):
    """The server says that nothing has happened."""


class InDoubtError(Exception):
    """Nobody can say whether it has happened."""


class Writer:
    """One connection that writes one thing after the other, and remembers what it was told.

    ``last`` is the number of the newest acknowledged write; ``doubts`` are later ones that may have
    happened, ``refused`` those that cannot have.
    """

    def __init__(self, name: str, port: Callable[[], int]) -> None:
        self.name, self.last = name, 0
        self.doubts: set[int] = set()
        self.refused: set[int] = set()
        self.keys = [next(keys_of(i, INSTANCES, f"{name}:{i}")) for i in range(INSTANCES)]
        self.wrong: list[str] = []
        self.told: Counter[str] = Counter()
        self._port, self._client = port, None  # type: tuple[Callable[[], int], Raw | None]

    def step(self, number: int) -> None:
        """One write."""
        try:
            self.write(number)
        except NotRunError:
            self.refused.add(number)
            self.told["not run"] += 1
        except InDoubtError:
            self.doubts.add(number)
            self.told["in doubt"] += 1
        else:
            self.last = number
            self.doubts.clear()
            self.told["acknowledged"] += 1

    def write(self, number: int) -> None:
        raise NotImplementedError

    def check(self) -> list[str]:
        """What is wrong with the data, once all is quiet."""
        raise NotImplementedError

    def expect(self, good: bytes, *words: bytes | str | int) -> None:
        """Ask; anything but the good reply or the truth about a fault is wrong."""
        reply = self.hear(*words)
        if reply != good and PROMISED not in reply:
            self.wrong.append(f"{words!r}: {reply!r}")

    def hear(self, *words: bytes | str | int) -> bytes:
        """Ask; a fault is an exception. What is promised counts as acknowledged."""
        reply = self.ask(*words)
        if reply.startswith(NOT_RUN):
            raise NotRunError
        if IN_DOUBT in reply:
            raise InDoubtError
        return reply

    def ask(self, *words: bytes | str | int) -> bytes:
        """One command. It is in doubt if the connection is lost, and not run if there is none."""
        if self._client is None:
            try:
                self._client = Raw(("127.0.0.1", self._port()))
            except OSError:
                raise NotRunError from None
        try:
            return self._client.ask(*words)
        except (OSError, EOFError):
            self.close()
            raise InDoubtError from None

    def read(self, *words: bytes | str | int) -> bytes:
        """Ask once the server knows: what was in doubt is decided soon after all is back."""
        replies: list[bytes] = []

        def is_known() -> bool:
            replies.append(self.ask(*words))
            return not replies[-1].startswith(NOT_RUN)

        until(is_known, f"{words!r} is decided", BACK_LIMIT)
        return replies[-1]

    def close(self) -> None:
        """End the connection."""
        if self._client:
            self._client.socket.close()
            self._client = None

    def values(self, keys: list[bytes]) -> list[int]:
        """The numbers that keys hold, 0 for none."""
        replies = [self.read("GET", key) for key in keys]
        return [0 if reply == b"$-1\r\n" else int(reply.split()[1]) for reply in replies]

    def judge(self, values: list[int]) -> list[str]:
        """All the same, none lost, none that was refused."""
        value = values[0]
        if len(set(values)) > 1:
            return [f"{self.name}: half a write: {values}"]
        if value != self.last and value not in self.doubts:
            return [f"{self.name}: {value}, acknowledged {self.last}, in doubt {self.doubts}"]
        return []


class Sets(Writer):
    """SET of one key."""

    def write(self, number: int) -> None:
        self.expect(b"+OK\r\n", "SET", self.keys[0], number)

    def check(self) -> list[str]:
        return self.judge(self.values(self.keys[:1]))


class Many(Writer):
    """MSET over all instances."""

    def write(self, number: int) -> None:
        self.expect(b"+OK\r\n", "MSET", *(word for key in self.keys for word in (key, number)))

    def check(self) -> list[str]:
        return self.judge(self.values(self.keys))


class Transactions(Writer):
    """MULTI, SETs on all instances, EXEC."""

    def write(self, number: int) -> None:
        self.expect(b"+OK\r\n", "MULTI")
        for key in self.keys:
            try:
                self.expect(b"+QUEUED\r\n", "SET", key, number)
            except InDoubtError:  # only queued: EXEC was not sent
                raise NotRunError from None
            except NotRunError:
                self.ask("DISCARD")
                raise
        self.expect(b"*%d\r\n" % INSTANCES + b"+OK\r\n" * INSTANCES, "EXEC")

    def check(self) -> list[str]:
        return self.judge(self.values(self.keys))


class Scripts(Writer):
    """A script that writes on two instances."""

    def write(self, number: int) -> None:
        self.expect(bulk(b"%d" % number), "EVAL", TWO, 2, *self.keys[:2], number)

    def check(self) -> list[str]:
        return self.judge(self.values(self.keys[:2]))


class Counters(Writer):
    """INCR: as often as acknowledged, and at most as often as sent."""

    def write(self, number: int) -> None:
        self.hear("INCR", self.keys[1])

    def check(self) -> list[str]:
        value, least = self.values(self.keys[1:2])[0], self.told["acknowledged"]
        most = least + self.told["in doubt"]
        return [] if least <= value <= most else [f"{self.name}: {value} not in {least}..{most}"]


class Pushes(Writer):
    """RPUSH: every acknowledged element is there once, in order; none twice."""

    def __init__(self, name: str, port: Callable[[], int]) -> None:
        super().__init__(name, port)
        self.pushed: list[int] = []

    def write(self, number: int) -> None:
        self.hear("RPUSH", self.keys[2], number)
        self.pushed.append(number)

    def check(self) -> list[str]:
        words = self.read("LRANGE", self.keys[2], 0, -1).split(b"\r\n")
        found = [int(word) for word in words[2::2]]
        if found != sorted(set(found)):
            return [f"{self.name}: out of order or twice"]
        lost, never = set(self.pushed) - set(found), self.refused & set(found)
        return [f"{self.name}: lost {lost}, refused and there {never}"] if lost or never else []


class Moves(Writer):
    """LMOVE to and fro between two instances: the element is always in exactly one list."""

    def write(self, number: int) -> None:
        here, there = self.keys[:2] if number % 2 else self.keys[1::-1]
        reply = self.hear("LMOVE", here, there, "LEFT", "RIGHT")
        if reply not in (bulk(b"coin"), b"$-1\r\n") and PROMISED not in reply:
            self.wrong.append(f"LMOVE: {reply!r}")

    def check(self) -> list[str]:
        held = [self.read("LRANGE", key, 0, -1) for key in self.keys[:2]]
        coins = b"".join(held).count(b"coin")
        return [] if coins == 1 else [f"{self.name}: {coins} coins"]


class Renames(Writer):
    """RENAME to and fro: the key has always exactly one of two names."""

    def write(self, number: int) -> None:
        old, new = self.keys[:2] if number % 2 else self.keys[1::-1]
        reply = self.hear("RENAME", old, new)
        if reply not in (b"+OK\r\n", b"-ERR no such key\r\n") and PROMISED not in reply:
            self.wrong.append(f"RENAME: {reply!r}")

    def check(self) -> list[str]:
        there = [self.read("EXISTS", key) for key in self.keys[:2]]
        return [] if sorted(there) == [b":0\r\n", b":1\r\n"] else [f"{self.name}: {there}"]


class Crew:
    """All writers, each in a thread of its own, until told to stop."""

    def __init__(self, port: Callable[[], int]) -> None:
        kinds = [Sets, Many, Transactions, Scripts, Counters, Pushes, Moves, Renames]
        self.writers = [kind(kind.__name__.lower(), port) for kind in kinds]
        self._ending = threading.Event()
        for writer in self.writers:
            if isinstance(writer, Moves):
                assert writer.ask("RPUSH", writer.keys[0], "coin") == b":1\r\n"
            if isinstance(writer, Renames):
                assert writer.ask("SET", writer.keys[0], "it") == b"+OK\r\n"
        self._threads = [
            threading.Thread(target=self._run, args=[writer], daemon=True)
            for writer in self.writers
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, writer: Writer) -> None:
        number = 0
        while not self._ending.is_set() and not writer.wrong:
            number += 1
            before = writer.told["not run"]
            try:
                writer.step(number)
            except Exception as error:  # a bug of this test, or an answer that never came
                writer.wrong.append(repr(error))
            if writer.told["not run"] != before:
                self._ending.wait(0.01)  # an instance is away; the ledger need not be full of it

    def acknowledged(self) -> list[int]:
        """How many writes each was told of."""
        return [writer.told["acknowledged"] for writer in self.writers]

    def wrong(self) -> list[str]:
        """What no writer should have been told."""
        return [line for writer in self.writers for line in writer.wrong]

    def stop(self) -> None:
        """No more writes."""
        self._ending.set()
        for thread in self._threads:
            thread.join(START_LIMIT)

    def check(self) -> list[str]:
        """Compare the data with the ledgers."""
        found: list[str] = []
        for writer in self.writers:
            writer.close()
            found += writer.check()
            writer.close()
        return found


class Victim:
    """A thREaDIS whose processes are killed; one without a supervisor is started again."""

    def __init__(self, start: Start, flags: list[str]) -> None:
        self._start, self._flags = start, flags
        self.running = start(*flags)

    def port(self) -> int:
        """Where it listens now."""
        return self.running.port

    def kill(self, foe: str, dice: random.Random) -> None:
        """Kill some of it in one moment."""
        running = self.running
        until(lambda: len(running.instance_pids()) == INSTANCES, "the instances", BACK_LIMIT)
        until(running.proxy_pids, "the proxy", BACK_LIMIT)
        instances, proxy = running.instance_pids(), running.proxy_pids()
        dice.shuffle(instances)
        pids = {
            "instance": instances[:1],
            "two instances": instances[:2],
            "all instances": instances,
            "proxy": proxy,
            "instance and proxy": [*proxy, instances[0]],
            "all but one": [*proxy, *instances],
            "all": [*proxy, *instances, running.process.pid],
        }[foe]
        dice.shuffle(pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if foe == "all":
            running.process.wait()
            until(lambda: not running.family(), "they are dead")
            self.running = self._start(*self._flags, folder=running.folder)

    def is_back(self) -> bool:
        """Whether every instance takes a write."""
        try:
            with Raw(("127.0.0.1", self.port())) as client:
                keys = [next(keys_of(i, INSTANCES, f"back:{i}")) for i in range(INSTANCES)]
                return all(client.ask("SET", key, "1") == b"+OK\r\n" for key in keys)
        except (OSError, EOFError, AssertionError):
            return False


@pytest.mark.torture
@pytest.mark.timeout(7200 if FULL else 150)
def test_the_ledgers_hold(threadis: Start, stock_server: ServerBinary) -> None:
    dice = random.Random(SEED)
    victim = Victim(threadis, [*FLAGS, "--server", str(stock_server.path)])
    crew = Crew(victim.port)
    killed: Counter[str] = Counter()
    foes = dice.choices(FOES, k=ROUNDS) if FULL else dice.sample(FOES, SAMPLE)
    for foe in foes:
        before = crew.acknowledged()
        until(
            lambda before=before: (
                crew.wrong()  # type: ignore[misc]
                or all(now > then for now, then in zip(crew.acknowledged(), before, strict=True))
            ),
            "every writer has written",
            BACK_LIMIT,
        )
        assert not crew.wrong(), crew.wrong()
        victim.kill(foe, dice)
        killed[foe] += 1
        until(victim.is_back, f"all is back after killing {foe}", BACK_LIMIT)
    crew.stop()
    found = crew.wrong() + crew.check()
    told = {writer.name: dict(writer.told) for writer in crew.writers}
    if FULL:
        kind = stock_server.kind
        summary = {"seed": SEED, "killed": killed, "told": told, "wrong": found}
        (RESULTS / f"torture-ledger-{kind}-{SEED}.json").write_text(
            json.dumps(summary, indent=1) + "\n"
        )
    assert not found, (found, told)

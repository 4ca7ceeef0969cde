"""Whose reply is it? Loads that know, while instances are killed, stopped and busy."""

import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import faults
from conftest import Threadis
from raw import Raw, bulk, command, keys_of
from threadis.bench.load import Load, LoadResult
from waiting import until

INSTANCES = 4
FULL = os.environ.get("THREADIS_TORTURE") == "full"
SEED = int(os.environ.get("THREADIS_SEED", "1"))
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
NOT_RUN = ("TRYAGAIN", "LOADING")  # provably not sent
OUTCOMES = (*NOT_RUN, "may or may not have run")  # what a fault may be told as

Start = Callable[..., Threadis]


class Background:
    """A load that runs while faults happen."""

    def __init__(self, load: Load) -> None:
        self._found: list[LoadResult] = []
        self._thread = threading.Thread(target=lambda: self._found.append(load.run()), daemon=True)
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> LoadResult:
        self._thread.join()
        return self._found[0]


def load(running: Threadis, **knobs: object) -> Load:
    address = f"127.0.0.1:{running.port}"
    settings = {"connections": 50, "key_count": 5_000, "seconds": 1.0, "warmup": 0.0, "seed": SEED}
    return Load(address=address, **{**settings, **knobs})  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def quiet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Threadis]:
    folder = tmp_path_factory.mktemp("ownership")
    flags = ["--instances", str(INSTANCES), "--workers", str(request.param), "--save", ""]
    started = Threadis(folder / "data", folder / "serve.log", flags)
    try:
        yield started.wait_until_serving()
    finally:
        started.close()


@pytest.mark.sample
@pytest.mark.parametrize("pipeline", [1, 16, 64])
@pytest.mark.parametrize("mix", ["get", "set", "mixed:0.3", "mget:10"])
def test_every_reply_is_its_own_clients(quiet: Threadis, mix: str, pipeline: int) -> None:
    wanted = load(quiet, mix=mix, pipeline=pipeline, seconds=0.5, private_keys=mix != "mget:10")
    assert wanted.preload().errors == 0
    result = wanted.run()
    assert (result.errors, result.examples) == (0, [])
    assert result.commands > 500


def test_large_values_and_uneven_keys(quiet: Threadis) -> None:
    wanted = load(quiet, mix="mixed:0.3", value_size=40_000, key_count=500, zipf=0.99, threads=2)
    assert wanted.preload().errors == 0
    result = wanted.run()
    assert (result.errors, result.examples) == (0, [])


@pytest.fixture
def durable(threadis: Start) -> Threadis:
    return threadis(
        "--instances", str(INSTANCES), "--workers", "2", "--save", "",
        "--appendonly", "yes", "--set", "appendfsync=always",
    )  # fmt: skip


def judge(result: LoadResult) -> None:
    """Faults may be told to those they hit, as such, and do nothing else."""
    assert result.ownership_errors == 0, result.examples
    assert result.order_errors == 0, result.examples
    assert result.missing_errors == 0, result.examples
    assert result.protocol_errors == 0, result.examples
    assert result.unanswered == 0, result.examples
    for example in result.examples:
        assert any(words in example for words in OUTCOMES), example


def is_back(running: Threadis, index: int) -> bool:
    with Raw(("127.0.0.1", running.port)) as client:
        return client.ask("GET", next(keys_of(index, INSTANCES))).startswith(b"$")


def kill(running: Threadis, index: int) -> None:
    os.kill(running.instance_pids()[index], signal.SIGKILL)


@contextmanager
def stopped(running: Threadis, index: int) -> Iterator[None]:
    """An instance that does nothing, and that is known to."""
    notice = f"instance {index} does not answer: it is stopped"
    told = running.log().count(notice)
    with faults.stopped(running.instance_pids()[index]):
        until(lambda: running.log().count(notice) > told, "the notice")
        yield


class Ledger:
    """Writes one key after the other and remembers what was acknowledged."""

    def __init__(self, running: Threadis) -> None:
        self.acknowledged: list[int] = []
        self.refused: dict[str, int] = {}
        self._port = running.port
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        with Raw(("127.0.0.1", self._port)) as client:
            for batch in itertools.count():
                if self._ending.is_set():
                    return
                numbers = range(batch * 8, batch * 8 + 8)
                client.send(b"".join(command("SET", f"ledger:{n}", f"value {n}") for n in numbers))
                for number in numbers:
                    reply = client.reply()
                    if reply == b"+OK\r\n":
                        self.acknowledged.append(number)
                    else:
                        kind = next((w for w in OUTCOMES if w.encode() in reply), reply.decode())
                        self.refused[kind] = self.refused.get(kind, 0) + 1

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def lost(self) -> list[int]:
        """What was acknowledged and is not there."""
        found = []
        with Raw(("127.0.0.1", self._port)) as client:
            for number in self.acknowledged:
                if client.ask("GET", f"ledger:{number}") != bulk(b"value %d" % number):
                    found.append(number)
        return found


@pytest.mark.torture
@pytest.mark.timeout(1800 if FULL else 60)
def test_faults_under_load(durable: Threadis) -> None:
    """Kill, or stop for a while, instances at random, with the load on and a ledger kept."""
    chance, cycles = random.Random(SEED), 50 if FULL else 3
    everything = load(durable, key_count=4_000)
    assert everything.preload().errors == 0
    ledger, results, done = Ledger(durable), [], []
    try:
        for _ in range(cycles):
            fault, index = chance.choice(["kill", "stop"]), chance.randrange(INSTANCES)
            knobs = {
                "mix": "mixed:0.3",
                "private_keys": True,
                "pipeline": chance.choice([1, 16, 64]),
            }
            if chance.random() < 0.3:
                knobs = {"mix": "mget:10", "pipeline": 4}
            running = Background(load(durable, key_count=4_000, seconds=2.0, **knobs))
            if fault == "kill":
                kill(durable, index)
            else:
                with stopped(durable, index):
                    others_answer(durable, index)
            judge_result = running.result()
            results.append(judge_result)
            judge(judge_result)
            until(lambda index=index: is_back(durable, index), "it is back")  # type: ignore[misc]
            done.append({"fault": fault, "instance": index, **knobs})
    finally:
        ledger.end()
    lost = ledger.lost()
    summary = {
        "seed": SEED,
        "cycles": len(done),
        "commands": sum(result.commands_total for result in results),
        "server_errors": sum(result.server_errors for result in results),
        "ownership_errors": sum(result.ownership_errors for result in results),
        "order_errors": sum(result.order_errors for result in results),
        "missing_errors": sum(result.missing_errors for result in results),
        "protocol_errors": sum(result.protocol_errors for result in results),
        "unanswered": sum(result.unanswered for result in results),
        "ledger_acknowledged": len(ledger.acknowledged),
        "ledger_refused": ledger.refused,
        "ledger_lost": len(lost),
        "schedule": done,
    }
    if FULL:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"torture-faults-{SEED}.json").write_text(json.dumps(summary, indent=1) + "\n")
    assert lost == [], summary
    assert len(ledger.acknowledged) > 100
    assert set(ledger.refused) <= set(OUTCOMES)


def others_answer(running: Threadis, index: int) -> None:
    """With one instance stopped: its keys fail fast and clearly, all others answer."""
    with Raw(("127.0.0.1", running.port)) as client:
        for other in range(INSTANCES):
            begin = time.monotonic()
            key = next(keys_of(other, INSTANCES))
            reply = client.ask("GET", key)
            if other == index:
                if reply.endswith(b"the command may or may not have run\r\n"):
                    reply = client.ask("GET", key)  # the workers had not heard of it yet
                expected = f"-TRYAGAIN instance {index} is stopped; the command was not run\r\n"
                assert reply == expected.encode()
            else:
                assert reply.startswith(b"$")
            assert time.monotonic() - begin < 1.0


def test_a_stopped_instances_old_replies_never_arrive(durable: Threadis) -> None:
    """What was sent before the stop was noticed is answered by an error, once, and not again."""
    mine, other = keys_of(0, INSTANCES), next(keys_of(1, INSTANCES))
    keys = [next(mine) for _ in range(50)]
    with Raw(("127.0.0.1", durable.port)) as one, Raw(("127.0.0.1", durable.port)) as two:
        for key in keys:
            assert one.ask("SET", key, key) == b"+OK\r\n"
            assert two.ask("GET", key) == bulk(key)
        pid = durable.instance_pids()[0]
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        one.send(b"".join(command("GET", key) for key in keys) + command("GET", other))
        assert two.ask("GET", other) == b"$-1\r\n"  # another connection does not wait
        assert time.monotonic() - begin < 1.0
        lost = (
            b"-ERR instance 0 was lost before it answered; the command may or may not have run\r\n"
        )
        assert [one.reply() for _ in keys] == [lost] * len(keys)
        assert one.reply() == b"$-1\r\n"
        assert time.monotonic() - begin < 6.0
        os.kill(pid, signal.SIGCONT)
        until(lambda: is_back(durable, 0), "it is back")
        for turn, key in enumerate(keys):
            assert one.ask("ECHO", turn) == bulk(b"%d" % turn)
            assert one.ask("GET", key) == bulk(key)
            assert two.ask("GET", key) == bulk(key)


def test_a_multi_key_command_is_whole_or_an_error(durable: Threadis) -> None:
    """MGET over all instances while one dies: never part of the values."""
    keys = [next(keys_of(index, INSTANCES)) for index in range(INSTANCES)]
    whole = b"*%d\r\n" % INSTANCES + b"".join(map(bulk, keys))
    with Raw(("127.0.0.1", durable.port)) as client:
        assert client.ask("MSET", *[part for key in keys for part in (key, key)]) == b"+OK\r\n"
        kill(durable, 2)
        answers: list[bytes] = []
        deadline = time.monotonic() + 15
        while answers.count(whole) < 200 and time.monotonic() < deadline:
            client.send(command("MGET", *keys) * 10)
            answers += [client.reply() for _ in range(10)]
        errors = {answer for answer in answers if answer != whole}
        assert answers[-1] == whole
        assert all(any(words.encode() in error for words in OUTCOMES) for error in errors), errors


def test_busy_is_not_stopped(durable: Threadis) -> None:
    """A command of seconds delays its own instance, and nothing is broken off."""
    numbers = [b"member:%d" % number for number in range(100_000)]
    tag = next(keys_of(0, INSTANCES)).decode()
    with Raw(("127.0.0.1", durable.port)) as slow, Raw(("127.0.0.1", durable.port)) as other:
        for name in ("a", "b"):
            assert slow.ask("SADD", f"{{{tag}}}{name}", *numbers) == b":100000\r\n"
        elapsed, times = 0.0, 150
        while elapsed < 2.0:
            names = [f"{{{tag}}}a"] + [f"{{{tag}}}b"] * times
            begin = time.monotonic()
            slow.send(command("SINTERCARD", len(names), *names) + command("PING"))
            for _ in range(20):
                assert other.ask("GET", next(keys_of(1, INSTANCES))) == b"$-1\r\n"
            assert time.monotonic() - begin < 1.0
            assert slow.reply() == b":100000\r\n"
            assert slow.reply() == b"+PONG\r\n"
            elapsed = time.monotonic() - begin
            times *= 3
        assert "does not answer" not in durable.log()

"""``multikey split`` and ``ordered-pipelines``: replies stay the bare server's."""

import os
import random
import signal
from collections.abc import Iterator

import pytest

from differential import scenarios_keys
from differential.conftest import owner, running_pair
from differential.pair import Pair, marked
from differential.wire import pack
from threadis.supervisor.server import ServerBinary
from waiting import until

KEYS = [b"key:%d" % number for number in range(40)]


@pytest.fixture(scope="module")
def pair(stock_server: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A bare server, and ours with both options."""
    flags = ["--multikey", "split", "--ordered-pipelines", "yes"]
    with running_pair(stock_server, tmp_path_factory.mktemp("split"), *flags) as found:
        yield found


@pytest.mark.parametrize("name", scenarios_keys.SCENARIOS)
def test_scenarios_as_one_pipeline(pair: Pair, name: str) -> None:
    with pair.both() as both:
        lines = scenarios_keys.SCENARIOS[name].splitlines()
        both.same_marked([marked(line) for line in lines if line])


def test_many_keys(pair: Pair) -> None:
    chance = random.Random(5)
    with pair.both() as both:
        for _ in range(60):
            pipeline = []
            for _ in range(chance.randrange(1, 12)):
                keys = chance.choices(KEYS, k=chance.randrange(1, 9))
                name = chance.choice([b"MSET", b"DEL", b"UNLINK", b"EXISTS", b"MGET", b"INCR"])
                if name == b"MSET":
                    keys = [word for key in keys for word in (key, b"%d" % chance.randrange(99))]
                pipeline.append([name, *(keys[:1] if name == b"INCR" else keys)])
            if chance.random() < 0.3:
                pipeline = [[b"MULTI"], *pipeline, [b"EXEC"]]
            both.same_all(pipeline)
        both.same("MSET", "a", 1, "b")
        both.same("MSET")
        both.same("CONFIG", "RESETSTAT")
        both.same("MSET", *(word for key in KEYS for word in (key, 1)))
        both.same("DEL", *KEYS)
        for side in (both.bare, both.ours):
            shown = side.ask("INFO", "commandstats").raw
            assert b"cmdstat_mset:calls=1," in shown
            assert b"cmdstat_del:calls=1," in shown


def test_a_write_waits_for_earlier_writes_elsewhere(pair: Pair) -> None:
    """One instance is stopped: what comes behind its write in the pipeline is not done."""
    mine = {instance: [key for key in KEYS if owner(key) == instance] for instance in range(4)}
    stopped = pair.threadis.instance_pids()[0]
    writer, reader = pair.ours(), pair.ours()
    try:
        os.kill(stopped, signal.SIGSTOP)
        first, behind, other = mine[1][0], mine[1][1], mine[2][0]
        pipeline = [
            [b"SET", first, b"1"],
            [b"SET", mine[0][0], b"1"],
            [b"GET", other],
            [b"SET", behind, b"1"],
            [b"MSET", other, b"1", mine[3][0], b"1"],
        ]
        writer.send(b"".join(pack(*words) for words in pipeline))
        until(lambda: reader.ask("GET", first).text == b"1", "the first write is done")
        for _ in range(10):
            found = reader.ask("MGET", behind, other, mine[3][0])
            assert found.raw == b"*3\r\n$-1\r\n$-1\r\n$-1\r\n"
        os.kill(stopped, signal.SIGCONT)
        replies = [writer.read().raw for _ in pipeline]
        assert replies == [b"+OK\r\n", b"+OK\r\n", b"$-1\r\n", b"+OK\r\n", b"+OK\r\n"]
        assert reader.ask("EXISTS", behind, other, mine[3][0]).number == 3
        assert reader.ask("DEL", *KEYS).number == 5
    finally:
        os.kill(stopped, signal.SIGCONT)
        writer.close()
        reader.close()

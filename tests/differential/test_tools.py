"""Real clients and real words: redis-cli, redis-benchmark, redis-py, a dictionary."""

import asyncio
import re
import shutil
import subprocess
from collections import Counter

import pytest
import redis.asyncio

from differential.conftest import INSTANCES, owner
from differential.pair import Pair
from differential.wire import pack

LIMIT = 40.0  # seconds for a tool on a busy machine


def run(pair: Pair, tool: str, *words: str, data: bytes = b"") -> str:
    """What a Debian tool prints; it ends with status 0."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} of the Debian package redis-tools is not installed")
    done = subprocess.run(
        [path, "-p", str(pair.threadis.port), *words],
        input=data,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    text = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, text
    return text


def test_redis_cli(pair: Pair) -> None:
    assert run(pair, "redis-cli", "set", "k", "a value") == "OK\n"
    assert run(pair, "redis-cli", "get", "k") == "a value\n"
    assert run(pair, "redis-cli", "-3", "mget", "k", "none", "k") == "a value\n\na value\n"
    assert run(pair, "redis-cli", "-n", "3", "dbsize") == "0\n"
    assert "unknown command" in run(pair, "redis-cli", "nope")
    assert run(pair, "redis-cli", "-x", "set", "stdin", data=b"from stdin") == "OK\n"
    assert run(pair, "redis-cli", data=b"select 2\nset in two\nset in two\ndbsize\n").endswith(
        "1\n"
    )


def test_redis_cli_pipe_scan_and_bigkeys(pair: Pair) -> None:
    names = [f"word:{number}" for number in range(5000)]
    printed = run(pair, "redis-cli", "--pipe", data=b"".join(pack("SET", n, n) for n in names))
    assert "errors: 0, replies: 5000" in printed
    assert sorted(run(pair, "redis-cli", "--scan").split()) == sorted(names)
    found = run(pair, "redis-cli", "--scan", "--pattern", "word:12*").split()
    assert sorted(found) == sorted(name for name in names if name.startswith("word:12"))
    run(pair, "redis-cli", "rpush", "the biggest list", *"abcdefgh")
    printed = run(pair, "redis-cli", "--bigkeys")
    assert "Sampled 5001 keys in the keyspace!" in printed
    assert re.search(r'Biggest\s+list found .*"the biggest list".* has 8 items', printed), printed


def test_redis_cli_stat_and_latency(pair: Pair) -> None:
    path = shutil.which("redis-cli")
    if path is None:
        pytest.skip("redis-cli of the Debian package redis-tools is not installed")
    with pair.threadis.client() as client:
        client.mset({f"k:{number}": number for number in range(123)})
    command = [path, "-p", str(pair.threadis.port), "-i", "0.1", "--stat"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        lines = [process.stdout.readline().decode() for _ in range(4)]
        process.terminate()
    assert [line.split()[0] for line in lines[2:]] == ["123", "123"], lines
    printed = run(pair, "redis-cli", "-i", "0.3", "--latency")  # not a terminal: one interval
    assert re.fullmatch(r"\d+ \d+ [\d.]+ [1-9]\d*\n", printed), printed


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark(pair: Pair, pipeline: str) -> None:
    tests = "set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset"
    printed = run(
        pair, "redis-benchmark", "-t", tests, "-n", "2000", "-c", "10", "-P", pipeline, "-q",
        "-r", "1000",
    )  # fmt: skip
    assert "rror" not in printed.replace("WARNING: Could not fetch server CONFIG", ""), printed
    assert printed.count("requests per second") == 18, printed


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_pipelines(pair: Pair, protocol: int) -> None:
    with pair.threadis.client(protocol=protocol, decode_responses=True) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(1000):
            pipeline.set(f"k:{number}", number).incr(f"k:{number}").hset(f"h:{number}", "f", number)
        assert pipeline.execute() == [
            reply for number in range(1000) for reply in (True, number + 1, 1)
        ]
        for number in range(1000):
            pipeline.get(f"k:{number}").hgetall(f"h:{number}")
        assert pipeline.execute() == [
            reply for n in range(1000) for reply in (str(n + 1), {"f": str(n)})
        ]
        assert client.dbsize() == 2000
        assert len(list(client.scan_iter(count=100))) == 2000
        assert client.info()["role"] == "master"
        assert client.client_list()


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_asyncio(pair: Pair, protocol: int) -> None:
    async def one(client: "redis.asyncio.Redis", number: int) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for step in range(20):
                pipeline.rpush(f"l:{number}", step)
            assert await pipeline.execute() == list(range(1, 21))
        assert await client.llen(f"l:{number}") == 20

    async def all_at_once() -> None:
        async with redis.asyncio.Redis(port=pair.threadis.port, protocol=protocol) as client:
            await asyncio.gather(*(one(client, number) for number in range(50)))
            assert await client.dbsize() == 50

    asyncio.run(all_at_once())


def test_a_real_dictionary(pair: Pair, words: list[bytes]) -> None:
    assert len(words) > 50_000
    assert len(set(words)) == len(words)
    with pair.threadis.client() as client:
        for at in range(0, len(words), 10_000):
            pipeline = client.pipeline(transaction=False)
            for word in words[at : at + 10_000]:
                pipeline.set(word, word[::-1])
            assert all(pipeline.execute())
        assert client.dbsize() == len(words)
        for at in range(0, len(words), 1000):
            part = words[at : at + 1000]
            assert client.mget(part) == [word[::-1] for word in part]
        found = list(client.scan_iter(count=1000))
        assert len(found) == len(words)
        assert set(found) == set(words)
        info = client.info("threadis")
    counts = [info[f"instance{index}"]["keys"] for index in range(INSTANCES)]
    owners = Counter(owner(word) for word in words)
    assert counts == [owners[index] for index in range(INSTANCES)]
    even = len(words) / INSTANCES
    assert all(0.9 * even < count < 1.1 * even for count in counts), counts

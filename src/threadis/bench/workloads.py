"""Loads other than GET, SET, MGET and MSET: how they are prepared, sent, and counted."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import redis
from msgspec.structs import replace
from redis.crc import key_slot

from threadis.bench.fanout import publish
from threadis.bench.load import Load, LoadResult
from threadis.bench.sockets import encode
from threadis.bench.storm import connect
from threadis.data.layout import SLOTS

Batch = tuple[bytes, int]  # commands in one write, and how many replies they get
Connected = Callable[[], None]  # to be called when all clients are connected

BATCHES = 2000  # different ones: random enough, and soon made
KEYS = 100_000  # that random ones are taken of
VALUE = b"sixteen bytes ..."[:16]
IN_TRANSACTION = 10  # commands between MULTI and EXEC
QUEUES = 4  # that one command takes from
SCRIPT = "return redis.call('INCR', KEYS[1])"
MEMBER = 100  # bytes of a member of a set
KILOBYTE, MEGABYTE = 1000, 1_000_000


class Workload(NamedTuple):
    """One kind of load."""

    run: Callable[[Load, Connected], LoadResult]
    unit: str = "command"
    prepare: Callable[[redis.Redis], None] = lambda _: None


def _plain(load: Load, connected: Connected) -> LoadResult:
    return load.run(connected)


def _batched(
    unit: str,
    replies: int,
    make: Callable[[random.Random, Load], list[Batch]],
    prepare: Callable[[redis.Redis], None] = lambda _: None,
) -> Workload:
    """A load of prepared batches; so many replies make one unit."""

    def run(load: Load, connected: Connected) -> LoadResult:
        batches = make(random.Random(load.seed), load)  # noqa: S311
        return replace(load, batches=batches).run(connected).per(replies)

    return Workload(run, unit, prepare)


def _pack(*commands: Sequence[str | bytes]) -> Batch:
    return b"".join(encode(*words) for words in commands), len(commands)


def _keys(random: random.Random, count: int, kind: str) -> list[str]:
    return [f"{kind}:{number}" for number in random.sample(range(KEYS), count)]


def _with_values(keys: Iterable[str]) -> list[str | bytes]:
    return list(itertools.chain.from_iterable((key, VALUE) for key in keys))


def _mset_del(count: int) -> Workload:
    def make(random: random.Random, load: Load) -> list[Batch]:
        some = (_keys(random, count, "gone") for _ in range(max(100, BATCHES // count)))
        return [_pack(["MSET", *_with_values(keys)], ["DEL", *keys]) for keys in some]

    return _batched("MSET and DEL", 2, make)


def _transaction(name: str) -> Workload:
    """A pipeline as redis-py sends it: MULTI, the commands, EXEC in one write."""

    def make(random: random.Random, load: Load) -> list[Batch]:
        batches = []
        for _ in range(BATCHES):
            keys = _keys(random, IN_TRANSACTION, "tx")
            value = [VALUE] if name == "SET" else []
            commands: list[list[str | bytes]] = [[name, key, *value] for key in keys]
            batches.append(_pack(["MULTI"], *commands, ["EXEC"]))
        return batches

    def prepare(client: redis.Redis) -> None:
        client.set("tx:0", VALUE)  # that others are missing costs as much

    return _batched("transaction", IN_TRANSACTION + 2, make, prepare)


def _hot_lock(random: random.Random, load: Load) -> list[Batch]:
    return [
        _pack(["MSET", *_with_values(["hot", *_keys(random, 1, "cold")])]) for _ in range(BATCHES)
    ]


def _queues(random: random.Random, load: Load) -> list[Batch]:
    """Half of the clients wait at a queue, the other half feeds one each."""
    if load.connections % 2:
        raise ValueError("connections: an even number, for pairs at queues")
    batches = []
    for queue in range(load.connections // 2):
        batches.append(_pack(["BLPOP", f"queue:{queue}", "1"]))
        batches.append(_pack(["LPUSH", f"queue:{queue}", VALUE]))
    return batches


def _full_queues(random: random.Random, load: Load) -> list[Batch]:
    """Each client feeds a queue and pops from it at once: no client waits."""
    queues = [f"full:{number}" for number in range(load.connections)]
    return [_pack(["LPUSH", queue, VALUE], ["BRPOP", queue, "1"]) for queue in queues]


def _several_queues(random: random.Random, load: Load) -> list[Batch]:
    """The same with four queues a client: it feeds one, and pops from the first non-empty one."""
    every = [[f"full:{number}:{at}" for at in range(QUEUES)] for number in range(load.connections)]
    return [_feed_and_take(random, queues) for queues in every]


def _priorities(random: random.Random, load: Load) -> list[Batch]:
    """The same, with all clients sharing the four queues."""
    queues = [f"full:{at}" for at in range(QUEUES)]
    return [_feed_and_take(random, queues) for _ in range(load.connections)]


def _feed_and_take(random: random.Random, queues: list[str]) -> Batch:
    return _pack(["LPUSH", random.choice(queues), VALUE], ["BRPOP", *queues, "1"])


def _evalsha(random: random.Random, load: Load) -> list[Batch]:
    digest = redis.Redis().register_script(SCRIPT).sha
    return [_pack(["EVALSHA", digest, "1", *_keys(random, 1, "count")]) for _ in range(BATCHES)]


def _load_script(client: redis.Redis) -> None:
    client.script_load(SCRIPT)


def _far_apart(kind: str) -> tuple[str, str]:
    """Return two keys in the two halves of the slots, so on two instances."""
    names = [f"{kind}:{number}" for number in range(100)]
    low = next(name for name in names if key_slot(name.encode()) < SLOTS // 2)
    return low, next(name for name in names if key_slot(name.encode()) >= SLOTS // 2)


def _intersect(size: int) -> Workload:
    """A set of so many bytes, and a small one on another instance."""
    large, small = _far_apart(f"set{size}")

    def prepare(client: redis.Redis) -> None:
        members = [f"{number:0{MEMBER}}" for number in range(size // MEMBER)]
        client.sadd(large, *members)
        client.sadd(small, members[0], members[-1], "no member")

    def make(random: random.Random, load: Load) -> list[Batch]:
        return [_pack(["SINTERSTORE", f"result:{number}", small, large]) for number in range(100)]

    return _batched("SINTERSTORE", 1, make, prepare)


def _copy(size: int) -> Workload:
    """Copy a string of so many bytes to another instance."""
    source, destination = _far_apart(f"string{size}")

    def prepare(client: redis.Redis) -> None:
        client.set(source, b"x" * size)

    def make(random: random.Random, load: Load) -> list[Batch]:
        return [_pack(["COPY", source, destination, "REPLACE"])]

    return _batched("COPY", 1, make, prepare)


WORKLOADS = {
    "plain": Workload(_plain),
    **{f"mset+del:{count}": _mset_del(count) for count in (10, 100, 1000)},
    "multi:set": _transaction("SET"),
    "multi:get": _transaction("GET"),
    "hot lock": _batched("MSET", 1, _hot_lock),
    "queues": _batched("pair", 2, _queues),
    "full queues": _batched("pair", 2, _full_queues),
    "several queues": _batched("pair", 2, _several_queues),
    "priorities": _batched("pair", 2, _priorities),
    "evalsha": _batched("EVALSHA", 1, _evalsha, _load_script),
    "sinterstore 1 KB": _intersect(KILOBYTE),
    "sinterstore 1 MB": _intersect(MEGABYTE),
    "copy 1 KB": _copy(KILOBYTE),
    "copy 1 MB": _copy(MEGABYTE),
    "publish": Workload(publish, "message"),
    "connect": Workload(connect, "connection"),
}

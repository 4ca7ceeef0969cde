"""After storms of clients that vanish in the middle, nothing is held for them any more."""

import random
import threading
from collections.abc import Callable

from conftest import Threadis
from raw import Raw, command
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4
CLIENTS = 60  # of one storm
THREADS = 4
KEYS = [f"leak:{number}" for number in range(12)]
# What is held for somebody; by its name in INFO.
HELD = ("threadis_lanes_aside", "threadis_locks", "threadis_watching_clients",
        "threadis_hidden_keys", "threadis_armed_keys", "threadis_upstream_subscriptions",
        "blocked_clients", "total_blocking_keys", "pubsub_channels", "pubsub_patterns",
        "pubsubshard_channels")  # fmt: skip

MANY = "redis.call('MSET', KEYS[1], 1, KEYS[2], 2) return redis.call('MGET', unpack(KEYS))"
PROGRAMS: list[list[str]] = [
    ["WATCH k k k", "MULTI", "SET k v", "SET k v", "EXEC"],
    ["WATCH k k"],
    ["MULTI", "INCR k", "LPUSH k v", "EXEC"],
    ["MULTI", "SET k v"],
    ["MSET k v k v k v", "RENAME k k", "DEL k k k"],
    ["SUNIONSTORE k k k", "SORT k BY k STORE k", "PFMERGE k k k", "LCS k k"],
    ["BLPOP k k k 0"],
    ["BLMOVE k k LEFT RIGHT 0.001", "BZPOPMIN k k 0"],
    ["XREAD BLOCK 0 STREAMS k k $ $"],
    ["MULTI", "BLPOP k 0", "EXEC", "BRPOP k k 0"],
    ["SUBSCRIBE k k", "PSUBSCRIBE k", "SSUBSCRIBE k"],
    ["SUBSCRIBE __keyspace@0__:k"],
    ["LPUSH k v v v", "LMOVE k k LEFT LEFT", "SMOVE k k v", "FLUSHALL"],
]


def storm(running: Threadis, dice: random.Random) -> None:
    """Clients that begin something and hang up rudely, some without reading a reply."""
    clients: list[Raw] = []
    for _ in range(CLIENTS // THREADS):
        client = Raw(("127.0.0.1", running.port))
        clients.append(client)
        program = [line.split() for line in dice.choice(PROGRAMS)]
        if dice.random() < 0.2:
            program = [["EVAL", MANY, "2", "k", "k"]]
        places = {"k": KEYS, "v": ["1", "x"]}
        filled = [[dice.choice(places.get(word, [word])) for word in line] for line in program]
        stream = b"".join(command(*words) for words in filled)
        client.send(stream if dice.random() < 0.8 else stream[: dice.randrange(len(stream))])
        if dice.random() < 0.5:
            clients.pop(dice.randrange(len(clients))).reset()
    for client in clients:
        client.reset()


def test_nothing_is_held_for_clients_that_are_gone(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    running = threadis(
        "--server", stock_server.path, "--instances", str(INSTANCES), "--workers", "2", "--save", ""
    )  # fmt: skip
    with running.client() as client:
        connected = client.info("clients")["connected_clients"]
        lent = client.info("threadis")["threadis_lent_links"]
        for turn in range(3):
            threads = [
                threading.Thread(target=storm, args=(running, random.Random(turn * 10 + number)))
                for number in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            def held() -> dict[str, int]:
                info = client.info("everything")
                found = {name: info[name] for name in HELD if info.get(name)}
                found["clients"] = info["connected_clients"] - connected
                # One for each instance on which keys were waited for stays: it tells of changes.
                found["lent"] = max(info["threadis_lent_links"] - lent - INSTANCES, 0)
                return {name: count for name, count in found.items() if count}

            try:
                until(lambda: not held(), "nothing is held")
            except AssertionError:
                assert held() == {}, running.log()[-2000:]
                raise
        # Whoever comes next finds every key free.
        client.mset(dict.fromkeys(KEYS, "free"))
        assert client.mget(KEYS) == [b"free"] * len(KEYS)

"""SLOWLOG and COMMANDLOG put together what instances have seen of a command."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from conftest import Threadis
from threadis.coordinator.admin.slowlog_split import Entry, SplitCommand, SplitCommands

Start = Callable[..., Threadis]
KEYS = [f"k:{number}" for number in range(2000)]


def whole(words: list[bytes], *, is_told: bool = False) -> SplitCommand:
    """One with parts on two instances."""
    parts = {0: [b"MGET", b"a"], 1: [b"MGET", b"b"]}
    return SplitCommand(
        [100, 0, words, b"address", b""], 50, 100, parts, is_slow=True, is_told=is_told
    )


def part(key: bytes, took: int = 20) -> Entry:
    """What an instance has logged of it."""
    return [100, took, [b"MGET", key], b"?:0", b""]


def test_parts_become_one_whichever_comes_first() -> None:
    wholes = SplitCommands()
    first, second = whole([b"MGET", b"a", b"b"]), whole([b"MGET", b"a", b"b", b"c"])
    assert wholes.open(first) == []
    assert wholes.join(0, part(b"a")) == [first.entry]
    assert wholes.join(1, part(b"b", 30)) == []
    assert first.entry[1] == 30  # the slowest counts
    early = part(b"a")
    assert wholes.join(0, early) == [early]  # told, as nobody knows better yet
    assert wholes.open(second) == [early]
    assert wholes.open(whole([b"MGET", b"a", b"b"])) == []  # it is of one only
    late = part(b"b", 60)
    assert wholes.join(1, late) == [late]  # longer than any of the whole
    with wholes.closing():
        assert len(wholes) == 3
    assert len(wholes) == 0


def test_nobody_who_looks_meanwhile_makes_a_command_two(threadis: Start) -> None:
    """Who looks while a command runs may see a part of it; later that is the whole."""
    rounds = 40
    running = threadis("--instances", "4", "--save", "")
    with running.client() as client, running.client() as looker, ThreadPoolExecutor(1) as pool:
        client.mset(dict.fromkeys(KEYS, "v"))
        client.config_set("slowlog-max-len", 1000)
        client.config_set("slowlog-log-slower-than", 5)
        client.slowlog_reset()

        def run() -> None:
            for number in range(rounds):
                client.mget(KEYS[number:])

        busy = pool.submit(run)
        while not busy.done():
            looker.slowlog_get(-1)
        busy.result()
        found = [
            one["command"].split()[1] for one in client.slowlog_get(-1) if b"MGET" in one["command"]
        ]
        assert sorted(found) == sorted(key.encode() for key in KEYS[:rounds])

"""What expires while a command over several instances runs: subscribers hear of it, once."""

import time

import pytest

from differential.listening import Listener
from differential.pair import Both
from differential.test_events import words_of
from differential.test_keyspace import spread

A, B, C, *_ = NAMES = spread("e", 4)
LIFE = 50  # milliseconds; what is slow takes longer
TRIES = 20  # on a busy machine it may be over before the command begins
SLOW = "for i = 1, 20000000 do end "
# What runs while A, which is 1, or a set, or not there, expires.
CASES = {
    name: f'EVAL "{script}" 3 A B C'.replace("SLOW", SLOW)
    for name, script in {
        "changed": "local a = redis.call('INCR', KEYS[1]) SLOW redis.call('SET', KEYS[2], 1) "
        "return a",
        "read": "local a = redis.call('GET', KEYS[1]) SLOW redis.call('SET', KEYS[2], 1) return a",
        "deleted": "SLOW redis.call('SET', KEYS[2], 1) return redis.call('DEL', KEYS[1])",
        "changed twice": "redis.call('INCR', KEYS[1]) SLOW redis.call('SET', KEYS[2], 1) "
        "return redis.call('DECR', KEYS[1])",
        "made": f"redis.call('SET', KEYS[3], 1, 'PX', {LIFE}) SLOW redis.call('SET', KEYS[2], 1) "
        "return redis.call('GET', KEYS[1])",
        "made anew": f"local a = redis.call('GETSET', KEYS[1], 5) redis.call('PEXPIRE', KEYS[1], "
        f"{LIFE}) SLOW redis.call('SET', KEYS[2], 1) return a",
        "for ever": "SLOW redis.call('SET', KEYS[2], 1) return redis.call('PERSIST', KEYS[1])",
    }.items()
} | {
    "transaction": "MULTI ; INCR A ; PFCOUNT C D ; EVAL \"redis.call('RENAME', KEYS[1], KEYS[2]) "
    f'{SLOW}" 2 A B ; EXPIRE C 100 ; EXEC',
    "between": f'MULTI ; COPY A B ; EVAL "{SLOW}" 2 A B ; SET C 1 ; EXEC',
}  # fmt: skip


def in_order(events: list[bytes]) -> list[bytes]:
    """With those of what expires at the same time behind the others, which are before these."""
    ends = [event for event in events if b"expired" in event]
    return [*events[: -len(ends)], *sorted(ends)] if ends else events


@pytest.mark.parametrize("case", CASES)
def test_what_expires_meanwhile_is_told_once(main: Both, listener: Listener, case: str) -> None:
    lines = [[b"SET", A.encode(), b"1", b"PX", b"%d" % LIFE]]
    lines += [words_of(line) for line in CASES[case].split(" ; ")]
    for _ in range(TRIES):
        main.same("DEL", *NAMES, how="shape")
        listener.since(main)
        said = [[side.ask(*line) for line in lines] for side in (main.bare, main.ours)]
        if said[0] == said[1]:
            break
    assert said[0] == said[1]
    time.sleep(2 * LIFE / 1000)
    for key in NAMES:  # who looks, has the rest expire
        main.same("EXISTS", key)
    bare, ours = listener.since(main)
    assert in_order(ours) == in_order(bare)


def test_what_expires_in_any_moment_is_told_once(main: Both, listener: Listener) -> None:
    """Whether it was there, its command says."""
    side = main.ours
    for number in range(90):
        side.ask("DEL", *NAMES)
        listener.since(main)
        side.ask("SET", A, "old", "PX", 1 + number % 3)
        time.sleep(number % 7 * 0.0003)
        if number % 3 == 0:
            side.ask("MULTI")
            side.ask("SUNION", B, C)
            side.ask("SET", A, "new", "GET")
            was_there = side.ask("EXEC").elements[1].text == b"old"
            wanted = ["set"]
        elif number % 3 == 1:
            script = "return {redis.call('SET', KEYS[1], 'new', 'GET'), redis.call('GET', KEYS[2])}"
            was_there = side.ask("EVAL", script, 2, A, B).elements[0].text == b"old"
            wanted = ["set"]
        else:
            was_there = side.ask("RENAME", A, C).raw == b"+OK\r\n"
            wanted = ["rename_from", "rename_to"] if was_there else []
            time.sleep(0.005)
            side.ask("EXISTS", C)
        if number % 3 == 2 or not was_there:
            wanted = [*wanted, "expired"] if was_there else ["expired", *wanted]
        _, told = listener.since(main)
        pairs = [event.split() for event in told]
        events = [name.decode() for channel, name in pairs if b"keyspace" in channel]
        assert events == ["set", "expire", *wanted], number

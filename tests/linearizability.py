"""Whether what concurrent clients saw can have happened, one command after the other.

The search of Wing and Gong, with Lowe's memory of where it has been: take a command that may have
been the next (no other had ended before it began), see whether a plain model of Redis gives the
reply that its client got, go on from there. A command of unknown outcome may come at any time after
it began, or never; but never behind a later one of its own client.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from raw import bulk

LIMIT: Final = 500_000  # states to look at
NIL: Final = b"$-1\r\n"
NIL_ARRAY: Final = b"*-1\r\n"
OK: Final = b"+OK\r\n"
NO_KEY: Final = b"-ERR no such key\r\n"
READS: Final = frozenset({"GET", "LRANGE"})

Command = tuple[str, ...]
Value = str | tuple[str, ...]
State = frozenset[tuple[str, Value]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client did: a command, or a transaction of several."""

    client: int
    begin: int  # before it was sent; any clock
    end: int | None  # after its reply was read; None: its outcome is not known
    commands: tuple[Command, ...]
    reply: bytes | None = None

    @property
    def keys(self) -> set[str]:
        """The keys it names."""
        return {key for command in self.commands for key in keys_of_command(command)}

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing."""
        return all(command[0] in READS for command in self.commands)


class NotLinearizableError(AssertionError):
    """There is no order in which this can have happened."""


class TooHardError(Exception):
    """There are too many orders to look at."""


Follows = Callable[[Operation, Operation], bool]


def always(_earlier: Operation, _later: Operation) -> bool:
    """A client's commands take effect in the order in which they were sent."""
    return True


def check(history: Sequence[Operation], follows: Follows = always) -> None:
    """Find an order for all that is known, on keys that did not exist before.

    The history has each client's commands in the order sent. ``follows`` says whether the order of
    two commands of one client must be kept.
    """
    known = [one for one in history if one.end is not None or not one.only_reads]
    operations = sorted(known, key=lambda one: one.begin)  # stable: a pipeline's order is kept
    needed = sum(1 << at for at, one in enumerate(operations) if one.end is not None)
    before, unknown_before = _order_of_clients(operations, follows)
    seen: set[tuple[int, State]] = set()
    most, todo = 0, [(0, State())]
    while todo:
        done, state = todo.pop()
        if not needed & ~done:
            return
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > LIMIT:
            raise TooHardError(f"{len(operations)} operations")
        most = max(most, done, key=int.bit_count)
        ahead = []
        for at in _next(operations, before, done):
            reply, after = apply(state, operations[at].commands)
            if operations[at].reply in (None, reply):
                ahead.append((done | 1 << at | unknown_before[at], after))
        ahead.sort(key=lambda item: (item[0] & needed).bit_count())  # known ones first
        todo += ahead
    raise NotLinearizableError(_describe(operations, before, most))


def _order_of_clients(
    operations: Sequence[Operation], follows: Follows
) -> tuple[list[int], list[int]]:
    """Of each operation, those of its client that come before it; and those that else never do."""
    before, unknown_before = [], []
    for at, later in enumerate(operations):
        known = unknown = 0
        for place, earlier in enumerate(operations[:at]):
            if earlier.client == later.client and follows(earlier, later):
                if earlier.end is None:
                    unknown |= 1 << place
                else:
                    known |= 1 << place
        before.append(known)
        unknown_before.append(unknown)
    return before, unknown_before


def _next(operations: Sequence[Operation], before: Sequence[int], done: int) -> list[int]:
    """Which may be the next to take effect."""
    found, at = [], (~done & (done + 1)).bit_length() - 1  # the first that is not done
    first_end: int | None = None
    for place in range(at, len(operations)):
        one = operations[place]
        if first_end is not None and one.begin > first_end:
            break
        if done >> place & 1:
            continue
        if not before[place] & ~done:
            found.append(place)
        if one.end is not None and (first_end is None or one.end < first_end):
            first_end = one.end
    return found


def _describe(operations: Sequence[Operation], before: Sequence[int], done: int) -> str:
    """Where the longest order that was found ends."""
    lines = [f"{done.bit_count()} of {len(operations)} operations can be explained; not these:"]
    lines += [f"  {operations[at]}" for at in _next(operations, before, done)]
    lines += ["of:"]
    lines += [f"{'x' if done >> at & 1 else ' '} {one}" for at, one in enumerate(operations)]
    return "\n".join(lines)


def apply(state: State, commands: Sequence[Command]) -> tuple[bytes, State]:
    """Run a command, or a transaction, on a plain model."""
    data = dict(state)
    replies = [_run(data, command) for command in commands]
    reply = replies[0] if len(replies) == 1 else b"*%d\r\n%s" % (len(replies), b"".join(replies))
    return reply, frozenset(data.items())


def _run(data: dict[str, Value], command: Command) -> bytes:
    """One command; a value is a string, or a list as a tuple."""
    name, key = command[:2]
    known, reply = data.get(key), OK
    match name, *command[2:]:
        case ["GET"]:
            reply = _bulk(known)
        case ["SET", value]:
            data[key] = value
        case ["SET", value, "NX"]:
            reply = NIL if known is not None else OK
            data.setdefault(key, value)
        case ["SET", value, "GET"]:
            reply, data[key] = _bulk(known), value
        case ["INCR"]:
            data[key] = str(int(str(known or 0)) + 1)
            reply = b":%s\r\n" % str(data[key]).encode()
        case ["DEL", *_]:
            gone = [data.pop(one, None) for one in command[1:]]
            reply = b":%d\r\n" % sum(one is not None for one in gone)
        case ["MSET", *_]:
            data.update(zip(command[1::2], command[2::2], strict=True))
        case ["RENAME", target]:
            if known is None:
                return NO_KEY
            data[target] = data.pop(key)
        case ["SWAP", other]:  # a script
            for place, swapped in ((key, data.get(other)), (other, known)):
                if swapped is None:
                    data.pop(place, None)
                else:
                    data[place] = swapped
        case ["RPUSH", value]:
            data[key] = (*(known or ()), value)
            reply = b":%d\r\n" % len(data[key])
        case ["LPOP"]:
            reply = _bulk(_pop(data, key))
        case ["BLPOP", *_]:  # who waits in vain has found nothing when it began to
            first = next((one for one in command[1:] if one in data), None)
            taken = first and _pop(data, first)
            reply = b"*2\r\n" + _bulk(first) + _bulk(taken) if first else NIL_ARRAY
        case ["LMOVE", target, "LEFT", "RIGHT"]:
            moved = _pop(data, key)
            if moved is not None:
                data[target] = (*data.get(target, ()), moved)
            reply = _bulk(moved)
        case ["LRANGE", "0", "-1"]:
            found = known or ()
            reply = b"*%d\r\n%s" % (len(found), b"".join(_bulk(value) for value in found))
        case _:
            raise NotImplementedError(command)
    return reply


def _pop(data: dict[str, Value], key: str) -> str | None:
    if key not in data:
        return None
    elements = tuple(data.pop(key))
    if elements[1:]:
        data[key] = elements[1:]
    return elements[0]


def _bulk(value: Value | None) -> bytes:
    return NIL if value is None else bulk(str(value).encode())


def keys_of_command(command: Command) -> Sequence[str]:
    """The keys of a command."""
    match command[0]:
        case "DEL" | "BLPOP":
            return command[1:]
        case "MSET":
            return command[1::2]
        case "RENAME" | "SWAP" | "LMOVE":
            return command[1:3]
        case _:
            return command[1:2]

"""Which commands block, what each waits for, where its timeout is, and what may end a wait.

The servers' metadata has none of this. The command table, the queues of waiting clients, and the
blocks for servers without memory read it here.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LIST: Final = b"list"
ZSET: Final = b"zset"
STREAM: Final = b"stream"


class Form(enum.Enum):
    """The arguments of a blocking command, after its name."""

    POP = enum.auto()  # key … timeout
    COUNTED_POP = enum.auto()  # timeout numkeys key … option …
    MOVE = enum.auto()  # source target option … timeout
    READ = enum.auto()  # option …, of which BLOCK has the timeout, STREAMS key … id …


@dataclass(frozen=True, slots=True)
class Blocking:
    """One blocking command."""

    waits_for: bytes  # the type of the value
    form: Form
    # What does the same without waiting: the name, and an option behind the keys
    at_once: tuple[bytes, ...]

    @property
    def takes_first(self) -> bool:
        """Whether it pops from the first key that has elements, and from no other."""
        return self.form in (Form.POP, Form.COUNTED_POP)

    @property
    def timeout_at(self) -> int | None:
        """Where its timeout, in seconds, is among the arguments; None: it has option BLOCK."""
        return {Form.POP: -1, Form.COUNTED_POP: 1, Form.MOVE: -1}.get(self.form)


# In the coordinator. What a module's command waits for is its own.
BLOCKING: Final = {
    "blpop": Blocking(LIST, Form.POP, (b"LMPOP", b"LEFT")),
    "brpop": Blocking(LIST, Form.POP, (b"LMPOP", b"RIGHT")),
    "bzpopmin": Blocking(ZSET, Form.POP, (b"ZMPOP", b"MIN")),
    "bzpopmax": Blocking(ZSET, Form.POP, (b"ZMPOP", b"MAX")),
    "blmpop": Blocking(LIST, Form.COUNTED_POP, (b"LMPOP",)),
    "bzmpop": Blocking(ZSET, Form.COUNTED_POP, (b"ZMPOP",)),
    "blmove": Blocking(LIST, Form.MOVE, (b"LMOVE",)),
    "brpoplpush": Blocking(LIST, Form.MOVE, (b"RPOPLPUSH",)),
    "xread": Blocking(STREAM, Form.READ, (b"XREAD",)),
    "xreadgroup": Blocking(STREAM, Form.READ, (b"XREADGROUP",)),
}
# They add elements of this type to their one key, and do nothing else.
FEEDS: Final = {
    **dict.fromkeys(("lpush", "rpush", "lpushx", "rpushx"), LIST),
    "zadd": ZSET,
    "xadd": STREAM,
}
# They may create a key that clients wait for, as scripts may. A client that waits for several keys
# gets the one that was created first, not the one that was named first (by DEL, for instance).
CREATE_KEYS: Final = frozenset({
    "lpush", "rpush", "lmove", "rpoplpush", "blmove", "brpoplpush", "sort", "zadd", "zincrby",
    "zunionstore", "zinterstore", "zdiffstore", "zrangestore", "geoadd", "georadius",
    "georadiusbymember", "geosearchstore", "xadd", "xgroup|create", "rename", "renamenx", "copy",
    "move", "restore", "swapdb",
})  # fmt: skip
# They write, but nothing that a client waits for; consumers of a stream use them all the time.
FEED_NOTHING: Final = frozenset({"xack", "xclaim", "xautoclaim", "xreadgroup", "xdel", "xtrim"})


def of_command(args: Sequence[bytes]) -> Blocking | None:
    """Return what is known of a blocking command; None: the command does not block."""
    return BLOCKING.get(args[0].lower().decode(errors="replace"))

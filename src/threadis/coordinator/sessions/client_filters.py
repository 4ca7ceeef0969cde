"""The filters of CLIENT LIST and CLIENT KILL, for each kind of server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from threadis import _core
from threadis.coordinator.base.numbers import parse_integer
from threadis.coordinator.sessions.client_fields import fields, kind_of

SYNTAX_ERROR: Final = "ERR syntax error"
KINDS: Final = {
    "normal": "normal", "pubsub": "pubsub", "slave": "replica", "replica": "replica",
    "master": "primary",
}  # fmt: skip
FLAGS: Final = set("AbcdeIOPRMStTuUxrBNin")  # that Valkey's filter accepts
CAPAS: Final = set("r")
NUMBERS: Final = ("maxage", "idle", "db")

Test = Callable[[_core.ClientInfo], bool]


class FilterError(Exception):
    """The server's error for the arguments."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What this server version supports, by the fields of its CLIENT INFO."""

    is_valkey: bool
    has_maxage: bool
    databases: int

    @classmethod
    def of(cls, names: list[str], databases: int) -> "Dialect":
        """Redis has CLIENT KILL MAXAGE since 7.4, as it has the field ``watch``."""
        return cls("capa" in names, "watch" in names, databases)


@dataclass(frozen=True, slots=True)
class Filters:
    """Every test must pass."""

    tests: list[Test]
    skip_me: bool
    ids: frozenset[int] | None = None  # the only clients to ask for

    def takes(self, client: _core.ClientInfo, asking: int) -> bool:
        """Whether this client matches; ``asking`` is the id of the client that asks."""
        if self.skip_me and client.id == asking:
            return False
        return all(test(client) for test in self.tests)


def parse_list(words: list[bytes], dialect: Dialect, users: Callable[[str], bool]) -> Filters:
    """Parse the arguments of CLIENT LIST."""
    if dialect.is_valkey:
        return _parse(words, dialect, users, skip_me=False)
    if not words:
        return Filters([], skip_me=False)
    option = words[0].lower()
    if option == b"type" and len(words) == 2:
        return Filters([_of_kind(words[1])], skip_me=False)
    if option == b"id" and len(words) > 1:
        wanted = {_number(word, "ERR Invalid client ID") for word in words[1:]}
        return Filters([], skip_me=False, ids=frozenset(wanted))
    raise FilterError(SYNTAX_ERROR)


def parse_kill(words: list[bytes], dialect: Dialect, users: Callable[[str], bool]) -> Filters:
    """Parse the arguments of CLIENT KILL in its new form."""
    return _parse(words, dialect, users, skip_me=True)


def address(wanted: bytes) -> Filters:
    """CLIENT KILL address, the old form; a client may kill itself."""
    return Filters([lambda client: client.address == wanted.decode(errors="replace")], False)


def _parse(
    words: list[bytes], dialect: Dialect, users: Callable[[str], bool], *, skip_me: bool
) -> Filters:
    tests: dict[str, Test] = {}  # the last of each name counts
    ids: frozenset[int] | None = None  # here, too
    at = 0
    while at < len(words):
        name = words[at].decode(errors="replace").lower()
        if at + 1 >= len(words):
            raise FilterError(SYNTAX_ERROR)
        raw = words[at + 1]
        at += 2
        is_not = dialect.is_valkey and name.startswith("not-")
        plain = name.removeprefix("not-") if is_not else name
        if plain == "id":
            wanted = {_id(raw, dialect)}
            while dialect.is_valkey and at < len(words) and parse_integer(words[at]) is not None:
                wanted.add(_id(words[at], dialect))
                at += 1
            if not is_not:
                ids = frozenset(wanted)
                continue
            test: Test = _one_of(wanted)
        elif name == "skipme":
            skip_me = _yes_or_no(raw)
            continue
        else:
            test = _test(plain, name, raw, dialect, users)
        tests[name] = _negated(test) if is_not else test
    return Filters(list(tests.values()), skip_me, ids)


def _test(
    plain: str, name: str, raw: bytes, dialect: Dialect, users: Callable[[str], bool]
) -> Test:
    """Build one filter; ``name`` is how it was written, in lower case."""
    text = raw.decode(errors="replace")
    if plain == "type":
        return _of_kind(raw, dialect)
    if plain in ("addr", "laddr"):
        at = "address" if plain == "addr" else "local_address"
        return lambda client: bool(getattr(client, at) == text)
    if plain == "user":
        if not users(text):
            raise FilterError(f"ERR No such user '{text}'")
        return lambda client: client.user == raw
    if name == "maxage" and dialect.has_maxage:
        least = _positive(raw, "maxage")
        return lambda client: client.age >= least
    if dialect.is_valkey:
        return _valkey_test(plain, name, raw, dialect.databases)
    raise FilterError(SYNTAX_ERROR)


def _valkey_test(plain: str, name: str, raw: bytes, databases: int) -> Test:
    text = raw.decode(errors="replace")
    filter_name = f"{name.upper()} filter" if name != plain else "provided filter"
    match plain:
        case "name":
            return lambda client: client.name == raw and raw != b""
        case "lib-name":
            return lambda client: client.lib_name == raw and raw != b""
        case "lib-ver":
            return lambda client: client.lib_version == raw and raw != b""
        case "ip":
            return lambda client: client.address.rsplit(":", 1)[0].strip("[]") == text
        case "idle" if name == plain:
            least = _positive(raw, "idle")
            return lambda client: client.idle >= least
        case "db":
            db = _number(raw, f"ERR {name.upper()} is not an integer or out of range")
            if not 0 <= db < databases:
                raise FilterError(f"ERR DB number should be between 0 and {databases - 1}")
            return lambda client: client.db == db
        case "flags":
            if not FLAGS.issuperset(text):
                raise FilterError(f"ERR Unknown flags found in the {filter_name}: {text}")
            return lambda client: set(fields(client)["flags"]).issuperset(text)
        case "capa":
            if not CAPAS.issuperset(text):
                raise FilterError(f"ERR Unknown capa found in the {filter_name}: {text}")
            return lambda client: set(fields(client)["capa"]).issuperset(text)
    raise FilterError(SYNTAX_ERROR)


def _of_kind(raw: bytes, dialect: Dialect | None = None) -> Test:
    text = raw.decode(errors="replace")
    kinds = KINDS | ({"primary": "primary"} if dialect and dialect.is_valkey else {})
    wanted = kinds.get(text.lower())
    if wanted is None:
        raise FilterError(f"ERR Unknown client type '{text}'")
    return lambda client: kind_of(client) == wanted


def _negated(test: Test) -> Test:
    return lambda client: not test(client)


def _one_of(ids: set[int]) -> Test:
    return lambda client: client.id in ids


def _yes_or_no(raw: bytes) -> bool:
    answers = {b"yes": True, b"no": False}
    if raw.lower() not in answers:
        raise FilterError(SYNTAX_ERROR)
    return answers[raw.lower()]


def _id(raw: bytes, dialect: Dialect) -> int:
    too_small = "ERR client-id should be greater than 0"
    number = _number(raw, SYNTAX_ERROR if dialect.is_valkey else too_small)
    if number < 1:
        raise FilterError(too_small)
    return number


def _positive(raw: bytes, name: str) -> int:
    number = _number(raw, f"ERR {name} is not an integer or out of range")
    if number < 1:
        raise FilterError(f"ERR {name} should be greater than 0")
    return number


def _number(raw: bytes, otherwise: str) -> int:
    number = parse_integer(raw)
    if number is None:
        raise FilterError(otherwise)
    return number

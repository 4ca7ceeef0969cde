"""The options of CLIENT TRACKING, and which of them are compatible."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from threadis import _core, resp
from threadis.coordinator.base.numbers import parse_integer
from threadis.coordinator.sessions.clients import Clients

SWITCH: Final = (
    "ERR You can't switch {} mode {}before disabling tracking for this client, and then "
    "re-enabling it with a different mode."
)
OVERLAP: Final = "Prefixes for a single client must not overlap."


class OptionError(Exception):
    """Invalid options; the text is the server's."""


@dataclass(frozen=True, slots=True)
class TrackingMode:
    """How a client tracks."""

    flags: frozenset[bytes] = frozenset()  # bcast, optin, optout, noloop
    redirect: _core.ClientInfo | None = None
    prefixes: tuple[bytes, ...] = ()

    def remembers(self, *, is_caching: bool) -> bool:
        """Whether what the client reads now is remembered."""
        if b"bcast" in self.flags:
            return False
        return (
            is_caching if b"optin" in self.flags else not (b"optout" in self.flags and is_caching)
        )


@dataclass(frozen=True, slots=True)
class TransactionTracking:
    """What a transaction does in which its client may begin to track."""

    before: list[bytes]  # what it reads before that
    read: list[bytes]
    touched: list[bytes]
    is_caching: bool  # CLIENT CACHING is in it


def check_mode(mode: TrackingMode, before: TrackingMode | None) -> TrackingMode:
    """Return the client's new mode, if its options are compatible with each other and with the mode
    ``before``.
    """
    flags = mode.flags
    if b"bcast" not in flags and mode.prefixes:
        raise OptionError("ERR PREFIX option requires BCAST mode to be enabled")
    if before and (b"bcast" in flags) != (b"bcast" in before.flags):
        raise OptionError(SWITCH.format("BCAST", "on/off "))
    if b"bcast" in flags and flags & {b"optin", b"optout"}:
        raise OptionError("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if {b"optin", b"optout"} <= flags:
        raise OptionError("ERR You can't specify both OPTIN mode and OPTOUT mode")
    if before and {b"optin", b"optout"} <= flags | before.flags:
        raise OptionError(SWITCH.format("OPTIN/OPTOUT", ""))
    if b"bcast" not in flags:
        return mode
    existing = before.prefixes if before else ()
    _check_prefixes(mode.prefixes, existing)
    return replace(mode, prefixes=(*existing, *(mode.prefixes or (b"",))))


def _check_prefixes(prefixes: Sequence[bytes], existing: Sequence[bytes]) -> None:
    for at, prefix in enumerate(prefixes):
        for what, others in (
            ("an existing", sorted(existing)),
            ("another provided", prefixes[at + 1 :]),
        ):
            for other in others:
                if prefix.startswith(other) or other.startswith(prefix):
                    first, second = prefix.decode(errors="replace"), other.decode(errors="replace")
                    raise OptionError(
                        f"ERR Prefix '{first}' overlaps with {what} prefix '{second}'. {OVERLAP}"
                    )


async def parse_mode(words: Sequence[bytes], clients: Clients) -> TrackingMode:
    """Parse the options, and check each by itself."""
    flags: set[bytes] = set()
    prefixes: list[bytes] = []
    redirect: _core.ClientInfo | None = None
    rest = list(words)
    while rest:
        option = rest.pop(0).lower()
        if option in (b"bcast", b"optin", b"optout", b"noloop"):
            flags.add(option)
        elif option == b"prefix" and rest:
            prefixes.append(rest.pop(0))
        elif option == b"redirect" and rest:
            if redirect:
                raise OptionError("ERR A client can only redirect to a single other client")
            redirect = await _target(rest.pop(0), clients)
        else:
            raise OptionError("ERR syntax error")
    return TrackingMode(frozenset(flags), redirect, tuple(prefixes))


async def _target(word: bytes, clients: Clients) -> _core.ClientInfo:
    number = parse_integer(word)
    if number is None:
        raise OptionError("ERR value is not an integer or out of range")
    if found := await clients.of([number]):
        return found[0]
    raise OptionError("ERR The client ID you want redirect to does not exist")


def trackinginfo(mode: TrackingMode | None, client: _core.ClientInfo) -> bytes:
    """Build the reply of CLIENT TRACKINGINFO."""
    known = mode.flags if mode else frozenset()
    flags = [b"on" if mode else b"off"]
    for name, caching in (
        (b"bcast", b""),
        (b"optin", b"caching-yes"),
        (b"optout", b"caching-no"),
    ):
        if name in known:
            flags.append(name)
            if caching and client.is_caching:
                flags.append(caching)
    if b"noloop" in known:
        flags.append(b"noloop")
    if client.is_redirect_broken:
        flags.append(b"broken_redirect")
    redirect = client.redirect if mode else -1
    prefixes = sorted(mode.prefixes) if mode else []
    is_new = client.resp == 3
    return b"".join(
        (
            b"%3\r\n" if is_new else b"*6\r\n",
            resp.bulk(b"flags"),
            b"%c%d\r\n" % (b"~" if is_new else b"*", len(flags)),
            *map(resp.bulk, flags),
            resp.bulk(b"redirect"),
            resp.integer(redirect),
            resp.bulk(b"prefixes"),
            b"*%d\r\n" % len(prefixes),
            *map(resp.bulk, prefixes),
        )
    )

"""Facts about the stock servers, asked once, of any instance, by the first proxy.

The supervisor keeps them for the next proxy, which can then serve clients before any instance
answers.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import hiredis

from threadis.catalog import commands
from threadis.control import ServerFacts
from threadis.coordinator.instances import info_merge
from threadis.coordinator.instances.links import LinkError, Links, Words, value
from threadis.resp import encode


async def ask_any_instance(links: Links, *, is_split: bool) -> ServerFacts | None:
    """Ask the first instance that answers; None if none does."""
    for index in links.all_instances():
        with contextlib.suppress(LinkError):
            return await _ask_instance(links, index, is_split)
    return None


async def _ask_instance(links: Links, index: int, is_split: bool) -> ServerFacts:
    questions: list[Words] = [
        [b"COMMAND"],
        [b"HELLO", b"2"],
        [b"MULTI"],
        [b"DISCARD"],
        [b"CLIENT", b"INFO"],
        [b"UNSUBSCRIBE"],
        [b"INFO", b"server"],
        [b"HELLO", b"3"],
    ]
    async with links.lease(index) as link:
        link.is_spoilt = True  # it uses RESP3 now
        replies = [value(reply) for reply in await link.ask(*questions)]
    entries, hello2, _, _, own, unsubscribed, info, hello3 = replies
    for reply in (entries, hello2, own, info, hello3):
        if isinstance(reply, hiredis.ReplyError):  # for instance, a script runs there
            raise LinkError(f"TRYAGAIN instance {index}: {reply}")
    server = info_merge.parse(info.decode())["Server"]
    says = dict(zip(hello2[::2], hello2[1::2], strict=True))
    return ServerFacts(
        commands=commands.derive(entries, is_split=is_split),
        hello2=[(name, encode(field)) for name, field in says.items()],
        hello3=[(name, encode(field)) for name, field in hello3.items()],
        pushes_follow_replies=pushes_follow_replies(says),
        unsubscribing_needs_subscription=isinstance(unsubscribed, hiredis.ReplyError),
        queues_nothing_when_full=queues_nothing_when_full(server),
        keeps_queue=b"multi=0" in own.split(),
        asks_who_first=asks_who_first(server),
        is_valkey=says[b"server"] == b"valkey",
        client_fields=[field.split("=")[0] for field in own.decode().split()],
    )


def pushes_follow_replies(hello: dict[bytes, Any]) -> bool:
    """Whether a client that publishes to itself reads the reply first: since Redis 7.2."""
    version = [int(part) for part in hello[b"version"].split(b".")[:2]]
    return hello[b"server"] != b"redis" or version >= [7, 2]


def asks_who_first(info: Mapping[str, str]) -> bool:
    """Whether AUTH is required before everything else: since Valkey 8.1."""
    return _valkey_version(info) >= [8, 1]


def queues_nothing_when_full(info: Mapping[str, str]) -> bool:
    """Whether MULTI queues nothing without memory, not even DEL: before Valkey 9."""
    return _valkey_version(info) < [9, 0]


def _valkey_version(info: Mapping[str, str]) -> list[int]:
    return [int(part) for part in info.get("valkey_version", "0").split(".")[:2]]

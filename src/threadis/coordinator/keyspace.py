"""Commands about the keyspace as a whole."""

import asyncio
import random

import hiredis

from threadis import _core, resp
from threadis.coordinator.links import Links


async def random_key(command: _core.Command, links: Links) -> bytes:
    """RANDOMKEY: an instance is drawn by how many keys it has, so every key is as likely."""
    db = command.info.db
    sizes = await asyncio.gather(
        *(links.call(index, b"DBSIZE", db=db) for index in range(links.count))
    )
    left = dict(enumerate(sizes))
    while any(left.values()):
        index = random.choices(list(left), weights=list(left.values()))[0]  # noqa: S311
        key = await links.call(index, b"RANDOMKEY", db=db)
        if isinstance(key, hiredis.ReplyError):
            return resp.error(str(key))
        if key is not None:
            return resp.bulk(key)
        left[index] = 0  # its last key went meanwhile
    return resp.null(command.info.resp)

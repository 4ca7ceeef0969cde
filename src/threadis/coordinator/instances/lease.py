"""Lends a connection for the length of an ``async with``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadis.coordinator.instances.links import Kind, Link, Links


class Lease:
    """A lent connection."""

    __slots__ = ("_db", "_index", "_kind", "_link", "_links")

    def __init__(self, links: "Links", index: int, kind: "Kind", db: int | None) -> None:
        self._links, self._index, self._kind, self._db = links, index, kind, db

    async def __aenter__(self) -> "Link":
        self._link = await self._links.take(self._index, self._kind, self._db)
        return self._link

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            self._link.is_spoilt = True
        self._links.give_back(self._link)

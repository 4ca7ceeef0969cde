"""How many of the changes since the last save are our own: records of commits.

A server counts them together with those of its clients. A save resets the count, at a moment that
we do not know. What was ours before our first look after a save is therefore not subtracted, so
that no change of a client is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from threadis.coordinator.instances.info_merge import Sections
from threadis.coordinator.instances.links import Links

SECTION: Final = "Persistence"
CHANGES: Final = "rdb_changes_since_last_save"


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where one process began to count after a save, and how many changes were ours before."""

    socket: str
    save: str
    before: int


class OwnChanges:
    """Subtracts them."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._since: dict[int, Baseline] = {}

    def subtract(
        self, answers: Mapping[int, Sections], counts: Mapping[int, int]
    ) -> dict[int, Sections]:
        """Return the instances' INFO without our changes; ``counts``: how many there were."""
        return {index: self._without(index, said, counts[index]) for index, said in answers.items()}

    def _without(self, index: int, said: Sections, count: int) -> Sections:
        fields = said.get(SECTION, {})
        if CHANGES not in fields:
            return said
        socket = self._links.instance(index).socket
        save = fields.get("rdb_saves") or fields.get("rdb_last_save_time", "")
        since = self._since.get(index)
        if since is None and save == "0":  # it has not saved at all
            since = Baseline(socket, save, 0)
        elif since is None or (since.socket, since.save) != (socket, save):
            since = Baseline(socket, save, count)
        self._since[index] = since
        changes = max(int(fields[CHANGES]) - (count - since.before), 0)
        return {**said, SECTION: {**fields, CHANGES: str(changes)}}

"""The two phases of a write over several instances: the messages and their replies.

``commits`` explains the protocol, and what happens if a process is lost. Without memory
participants cannot queue their parts first: then a script takes the place of the block
(``oom_blocks``). Clients' scripts cannot be part of another script; a server that queues them then
(Valkey 9) accepts the block, with a script of ours in it for each record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from threadis import own_names, resp
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.fenced import FencedBlock, Script
from threadis.coordinator.instances.links import (
    Link,
    LinkError,
    Links,
    UnknownOutcomeError,
    Words,
)
from threadis.coordinator.instances.packed import Packable
from threadis.coordinator.keys.write_parts import Part, PartPlace
from threadis.coordinator.multikey import oom_blocks, pending_writes
from threadis.coordinator.multikey.records import PreparedRecord


class RefusedError(Exception):
    """A server refused a part, so nothing was done; ``reply`` is its error."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode(errors="replace"))
        self.reply = reply


class FencedScripts:
    """The scripts in the parts of one write; each is fenced."""

    def __init__(self, scripts: Mapping[PartPlace, Script]) -> None:
        self._scripts = scripts
        self._instances = {index for index, _ in scripts}
        self._blocks: dict[int, FencedBlock] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._scripts)

    def block(self, index: int, part: Part, behind: Part = ()) -> FencedBlock | None:
        """Build an instance's block, with our commands ``behind``; None without scripts."""
        if index not in self._instances:
            return None
        pieces = (
            self._scripts[index, at].fence if (index, at) in self._scripts else words
            for at, words in enumerate(part)
        )
        block = self._blocks[index] = FencedBlock([*pieces, *behind])
        return block

    async def results(self, index: int, link: Link, *, is_queued: bool = False) -> list[bytes]:
        """Wait for the replies of a block that was sent; RefusedError if it has not run."""
        found = await self._blocks[index].receive(link, is_queued=is_queued)
        if (refusal := found[0].refusal) is not None:
            raise RefusedError(refusal)
        for (where, at), script in self._scripts.items():
            if where == index:
                script.answers = found[at]
        return [one.reply for one in found]

    async def results_of(self, index: int, link: Link, told: Part) -> list[bytes] | None:
        """Return the replies in EXEC's, or of the script that ran the part ``told`` for want of
        memory; None if it was refused, or did not come.
        """
        try:
            if index in self._blocks:
                return await self.results(index, link, is_queued=True)
            reply = (await link.receive(1))[0]
        except (LinkError, RefusedError):
            return None
        return await oom_blocks.results(reply, told, link.kind.resp)

    async def run(self, link: Link, part: Part, behind: Part = ()) -> list[bytes]:
        """Run a part and our commands behind it as one block; RefusedError if it has not run."""
        if block := self.block(link.index, part, behind):
            block.send(link)
            return await self.results(link.index, link)
        *queued, reply = await link.ask([b"MULTI"], *part, *behind, [b"EXEC"])
        return await exec_results(queued, reply)


class Phases:
    """Sends the messages."""

    def __init__(self, links: Links, records: int) -> None:
        self._links = links
        self._records = records  # their database

    async def prepare(
        self,
        links: dict[int, Link],
        parts: Mapping[int, Part],
        record: PreparedRecord,
        name: bytes,
        scripts: FencedScripts,
        *,
        is_scarce: bool,
    ) -> None:
        """Let the participants queue their parts; RefusedError if one refuses."""
        hidden, back = [b"SELECT", b"%d" % self._records], [b"SELECT", b"%d" % record.db]
        batches = {}
        for index in links:
            part = list(parts[index])
            payload = await offload(sum(map(len, part)), replace(record, commands=part).encode)
            key = own_names.PREPARED + name
            hide, delete, show = self.participant_end(name, record.db)
            full = [] if is_scarce else [self._without_effect(name)]
            block = scripts.block(index, part, [hide, *full, delete, show])
            told = block.commands if block else [*part, hide, delete, show]
            batch: list[Packable] = [hidden, [b"SET", key, payload], back]
            if is_scarce:
                batch[1] = oom_blocks.block([[b"SET", key, bytes(payload)]], 2)
            if not is_scarce or scripts:
                batch += [[b"MULTI"], *told]
            await offload(len(batch), self._links.limits.check, batch)
            batches[index] = batch
        for index, link in links.items():
            link.send(*batches[index])
        refusal, noted = None, []
        try:
            for index, link in links.items():
                answer = await link.receive(len(batches[index]))
                refusal = refusal or next((one for one in answer if one.startswith(b"-")), None)
                if not answer[1].startswith(b"-"):
                    noted.append(index)
        except BaseException:
            for link in links.values():
                link.is_spoilt = True
            raise
        if refusal is not None:
            await self.abort(links, name, noted)
            raise RefusedError(refusal)

    async def abort(self, links: dict[int, Link], name: bytes, noted: Iterable[int]) -> None:
        """Discard the parts, and delete the records of participants that have one."""
        for link in links.values():
            await link.ask([b"DISCARD"])
        for index in noted:
            await pending_writes.delete(
                self._links, index, self._records, own_names.PREPARED + name
            )

    async def decide(
        self,
        leader: Link,
        part: Part,
        participants: dict[int, Link],
        name: bytes,
        db: int,
        scripts: FencedScripts,
        *,
        is_scarce: bool,
    ) -> list[bytes]:
        """Run the leader's part; RefusedError if it refuses."""
        hidden, back = [b"SELECT", b"%d" % self._records], [b"SELECT", b"%d" % db]
        decided: Words = [b"SET", own_names.DECIDED + name, msgspec.json.encode(list(participants))]
        behind = [hidden, decided, back]
        if is_scarce and scripts:
            # DEL, without effect, is refused wherever a writing script fails; then all is refused.
            behind = [hidden, [b"DEL", decided[1]], oom_blocks.block([decided], 2), back]
        try:
            if is_scarce and not scripts:
                return (await _run_without_memory(leader, part, behind))[: len(part)]
            return (await scripts.run(leader, part, behind))[: len(part)]
        except RefusedError:
            await self.abort(participants, name, participants)
            raise

    def _without_effect(self, name: bytes) -> Words:
        """Build a command that a server without memory refuses: scripts may be queued there, and
        fail.
        """
        return [b"LPUSHX", own_names.DECIDED + name, b""]

    def participant_end(self, name: bytes, db: int) -> Part:
        """Return the commands that end a participant's part."""
        hidden, back = [b"SELECT", b"%d" % self._records], [b"SELECT", b"%d" % db]
        return [hidden, [b"DEL", own_names.PREPARED + name], back]


async def _run_without_memory(link: Link, part: Part, behind: Part) -> list[bytes]:
    """Run a part and our commands behind it as one script; RefusedError if that has not written.

    Commands of the part that the server would not run have failed by themselves.
    """
    block = oom_blocks.block([*part, *behind], link.kind.resp)
    reply = (await link.ask(block))[0]
    results = await oom_blocks.results(reply, part, link.kind.resp) or [reply]
    if results[-2:-1] != [resp.OK]:
        raise RefusedError(next((one for one in results if one.startswith(b"-")), reply))
    return results


def incomplete_write(link: Link) -> UnknownOutcomeError:
    """Build the error for a decided write that is not done at this instance yet."""
    if link.is_spoilt:
        what, when = "was lost during", "when it is back"
    else:  # it has no memory for it, or no disk space
        what, when = "refuses its part of", "as soon as it accepts it"
    return UnknownOutcomeError(
        f"ERR instance {link.index} {what} a write to several instances; "
        f"it will be completed {when}"
    )


async def exec_results(queued: list[bytes], reply: bytes) -> list[bytes]:
    """Return the replies in EXEC's reply; RefusedError if there are none."""
    if reply.startswith(b"*") and not reply.startswith(b"*-1"):
        return await long_replies.elements(reply)
    raise RefusedError(next((one for one in queued if one.startswith(b"-")), reply))

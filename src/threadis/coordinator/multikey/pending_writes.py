"""Decided writes that an instance refuses for now.

A server refuses writes, for instance, after a snapshot that failed. What was decided before that is
written all the same, and records are deleted: otherwise the keys could not even be read meanwhile.

If the append-only file cannot be written, no option helps. Then the keys of a decided part stay in
doubt until there is disk space: their old values, together with the others' new ones, would be half
a write. Records that are not needed any more are deleted then; no key waits for that.
"""

from collections.abc import Sequence
from typing import Final

from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.instances.fenced import Fence, FencedBlock
from threadis.coordinator.instances.links import Kind, Link, LinkError, Links, Words, value
from threadis.coordinator.multikey import oom_blocks

# The text of a refusal, its option, and the value with which that refuses nothing.
OPTIONS: Final = (
    (b"(stop-writes-on-bgsave-error option)", b"stop-writes-on-bgsave-error", b"no"),
    (b"NOREPLICAS ", b"min-replicas-to-write", b"0"),
)


async def run(links: Links, index: int, part: Sequence[Words], db: int) -> None:
    """Run commands as one block; LinkError if they have not run, or if that is not known."""
    if any(_is_script(words) for words in part):
        await _run_scripts(links, index, part, db)
        return
    block: list[Words] = [[b"MULTI"], *part, [b"EXEC"]]
    async with links.lease(index, Kind(), db) as link:
        *queued, reply = await link.ask(*block)
        refusal = next((one for one in queued if one.startswith(b"-")), reply)
        if refusal.startswith(oom_blocks.NO_MEMORY):
            (reply,) = await link.ask(oom_blocks.block(part, link.kind.resp))
        elif refusal.startswith(b"-"):
            reply = (await run_with_option_off(link, block, refusal) or [reply])[-1]
        if not reply.startswith(b"*") or reply.startswith(b"*-1"):
            raise _still_refused(index, refusal)


async def _run_scripts(links: Links, index: int, part: Sequence[Words], db: int) -> None:
    """The same with scripts among them, which could forge replies or fail midway.

    So they are fenced, and memory limits are lifted while they run.
    """
    block = FencedBlock(Fence(words) if _is_script(words) else words for words in part)
    async with links.lease(index, Kind(), db) as link:
        options = [b"maxmemory", *(option for _, option, _ in OPTIONS)]
        known = value((await link.ask([b"CONFIG", b"GET", *options]))[0])
        offs = [b"0", *(off for _, _, off in OPTIONS)]
        lifted = [word for pair in zip(options, offs, strict=True) for word in pair]
        await link.ask([b"CONFIG", b"SET", *lifted])
        try:
            block.send(link)
            refusal = (await block.receive(link))[0].refusal
        finally:
            await links.raw(index, [[b"CONFIG", b"SET", *known]])
        if refusal is not None:
            raise _still_refused(index, refusal)


def _still_refused(index: int, refusal: bytes) -> LinkError:
    return LinkError(f"TRYAGAIN instance {index}: {refusal.strip().decode(errors='replace')}")


def _is_script(words: Words) -> bool:
    return words[0].lower().decode(errors="replace") in SCRIPTS


async def delete(links: Links, index: int, db: int, *names: bytes) -> None:
    """Delete records; LinkError if they may still exist."""
    (reply,) = await links.raw(index, [[b"DEL", *names]], db=db)
    if reply.startswith(b"-"):
        await run(links, index, [[b"DEL", *names]], db)


async def run_with_option_off(
    link: Link, commands: Sequence[Words], refusal: bytes
) -> list[bytes] | None:
    """Run commands while the option that refused them is off; None if it is no such refusal."""
    for said, option, off in OPTIONS:
        if said in refusal:
            (known,) = await link.ask([b"CONFIG", b"GET", option])
            set_back = [b"CONFIG", b"SET", option, value(known)[1]]
            _, *replies, _ = await link.ask([b"CONFIG", b"SET", option, off], *commands, set_back)
            return replies
    return None

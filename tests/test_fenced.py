"""A script's block on a connection to a stock server: who gives up, and who has no rights."""

import asyncio

import pytest

from test_links import PLAIN, Process, instance, links_to, run, tell
from threadis import control, own_names, resp
from threadis.coordinator.instances import fenced
from threadis.coordinator.instances.fenced import Fence
from threadis.coordinator.instances.links import UnknownOutcomeError
from threadis.coordinator.lua.sandbox_user import SandboxRules, SandboxUser

__all__ = ["instance"]

WRITES = [b"EVAL", b"return redis.call('SET', KEYS[1], 'x')", b"1", b"k"]
ENDLESS = [b"EVAL", b"redis.call('SET', KEYS[1], 'x') while true do end", b"1", b"k"]


def test_who_waits_for_a_script_of_an_instance_that_has_stopped_is_told(
    instance: tuple[Process, str],
) -> None:
    async def ask() -> None:
        with links_to(instance) as links:
            async with links.lease(0, PLAIN) as link:
                asked = asyncio.ensure_future(fenced.ask(link, Fence(ENDLESS)))
                await asyncio.sleep(0)
                tell(links, instance, control.State.STOPPED)
                with pytest.raises(UnknownOutcomeError):
                    await asked
                assert link.is_spoilt

    run(ask())


@pytest.mark.parametrize("was_in", [False, True])
def test_a_script_whose_guard_is_refused_has_no_rights(
    instance: tuple[Process, str], was_in: bool
) -> None:
    """Not ours, and not those that the guard had for the script before."""

    async def ask() -> None:
        with links_to(instance) as links:
            async with links.lease(0, PLAIN) as link:
                nobody = links.login(own_names.NOBODY)
                await link.ask(
                    [b"ACL", b"SETUSER", own_names.ADMIN, b"on", b"nopass", b"+@all", b"~*", b"&*"],
                    [b"ACL", b"SETUSER", own_names.NOBODY, b"on", b"nopass"],
                )
                guard = SandboxUser()

                async def attempt(denied: list[bytes]) -> fenced.FencedReplies:
                    before = guard.before(None, SandboxRules([b"k"], denied))
                    fence = Fence(WRITES, [*before, *guard.logins(nobody)], [links.login()])
                    return await fenced.ask(link, fence)

                if was_in:
                    answers = await attempt([])
                    assert (answers.before[-1], answers.reply) == (resp.OK, resp.OK)
                answers = await attempt([b"no|such"])
                assert answers.before[-1].startswith(b"-WRONGPASS ")
                assert answers.reply.startswith(b"-") and b"permission" in answers.reply
                assert (await attempt([])).reply == resp.OK

    run(ask())

"""Scripts as steps of a transaction: how each is done, and what becomes known of those that ran."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from threadis import _core
from threadis.coordinator.base.command_table import KeyAccess
from threadis.coordinator.instances.links import LinkError
from threadis.coordinator.lua.analysis import Reach
from threadis.coordinator.lua.call import Call, declared
from threadis.coordinator.lua.sandboxed import Guarded
from threadis.coordinator.lua.transaction_scripts import EVALS, Brought, sha1
from threadis.coordinator.multikey.queued import How, Step
from threadis.coordinator.scripting.commands import Scripts


class ScriptSteps:
    """Those of all transactions."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts, self._library, self._links = scripts, scripts.library, scripts.links

    async def _calls(
        self, steps: list[Step], write: range, command: _core.Command
    ) -> tuple[dict[int, Call], Brought]:
        """Find the scripts among a transaction's steps, and what is told of those there are not."""
        calls: dict[int, Call] = {}
        brings = {
            sha1(step.parsed.args[1]): at
            for at, step in enumerate(steps)
            if step.how is How.SCRIPT and step.parsed.args[0].lower() in EVALS
        }
        brought = Brought(self._library, brings)
        for at, step in enumerate(steps):
            words = step.parsed.args
            keys = declared(words) if step.how is How.SCRIPT else None
            if keys is not None:
                call = await self._scripts.call(words, keys, step.db, command, brought)
                if call is None:
                    brought.replies[at] = await self._library.no_script()
                else:
                    calls[at] = call
            elif at >= write.start:
                await brought.answer(at, words)
            brought.go_past(words)
        return calls, brought

    async def placed(
        self, steps: list[Step], write: range, command: _core.Command
    ) -> tuple[list[Step], Brought]:
        """Say how the scripts among a transaction's steps are done; some must be alone."""
        calls, brought = await self._calls(steps, write, command)
        homes = {at: self._scripts.in_place.home(call, call.keys) for at, call in calls.items()}
        owners = set(homes.values()).union(*(step.owners for step in steps if step.is_written))
        # What a crash leaves is ended without a guard: nothing is to be forbidden then.
        are_at_home = all(step.how is not How.ANYWHERE for step in steps) and all(
            self._scripts.is_at_home(call)
            and not call.is_function
            and (len(owners) <= 1 or not call.rights)
            for call in calls.values()
        )
        found = []
        for at, step in enumerate(steps):
            if (call := calls.get(at)) is None:
                if at in brought.replies and step.how is How.SCRIPT:
                    parsed = replace(step.parsed, keys=[])
                    step = replace(step, parsed=parsed, how=How.AT_HOME, names=[], owners=set())
                elif step.how is How.SCRIPT:  # its numbers are wrong: any server says so
                    how = How.AT_HOME if are_at_home else How.ANYWHERE
                    owners_of_it = owners or {self._links.any_ready()}
                    step = replace(step, how=how, owners={min(owners_of_it)})
                found.append(step)
                continue
            accesses = [KeyAccess(key, reads=True, writes=call.writes) for key in call.keys]
            step = replace(step, parsed=replace(step.parsed, keys=accesses))
            if are_at_home:
                keeps = self._scripts.reach(call) is Reach.DECLARED
                found.append(self._scripts.in_place.step(step, call, keeps_to_keys=keeps))
            else:
                names = [(step.db, key, call.writes) for key in call.keys]
                found.append(replace(step, how=How.ANYWHERE, script=call, names=names))
        return found, brought

    async def ran(self, steps: Iterable[Step]) -> None:
        """Make known what a transaction has brought that has run."""
        for step in steps:
            call = step.script.call if isinstance(step.script, Guarded) else step.script
            if call is None:
                continue
            if call.words[0].lower() in EVALS:
                with suppress(LinkError):  # it has run
                    await self._library.prepare(call.name, call.words[1])
            self._scripts.tell(call)

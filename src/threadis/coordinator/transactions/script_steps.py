"""Scripts as steps of a transaction: how each is run, and which scripts are loaded afterwards."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from threadis import _core
from threadis.coordinator.base.command_table import KeyAccess
from threadis.coordinator.instances.links import LinkError
from threadis.coordinator.lua.analysis import Reach
from threadis.coordinator.lua.sandbox import SandboxedScript
from threadis.coordinator.lua.script_call import ScriptCall, declared_keys, sha1
from threadis.coordinator.lua.transaction_scripts import EVALS, TransactionScripts
from threadis.coordinator.multikey.transaction_plan import Step, StepRoute
from threadis.coordinator.scripting.commands import ScriptCommands


class ScriptSteps:
    """The scripts of all transactions."""

    def __init__(self, scripts: ScriptCommands) -> None:
        self._scripts, self._library, self._links = scripts, scripts.library, scripts.links

    async def _calls(
        self, steps: list[Step], write: range, command: _core.Command
    ) -> tuple[dict[int, ScriptCall], TransactionScripts]:
        """Return the calls of a transaction's scripts, and the scripts that it loads."""
        calls: dict[int, ScriptCall] = {}
        will_load = {
            sha1(step.parsed.args[1]): at
            for at, step in enumerate(steps)
            if step.route is StepRoute.SCRIPT and step.parsed.args[0].lower() in EVALS
        }
        loaded_scripts = TransactionScripts(self._library, will_load)
        for at, step in enumerate(steps):
            words = step.parsed.args
            keys = declared_keys(words) if step.route is StepRoute.SCRIPT else None
            if keys is not None:
                call = await self._scripts.call(words, keys, step.db, command, loaded_scripts)
                if call is None:
                    loaded_scripts.replies[at] = await self._library.no_script()
                else:
                    calls[at] = call
            elif at >= write.start:
                await loaded_scripts.answer(at, words)
            loaded_scripts.advance(words)
        return calls, loaded_scripts

    async def place(
        self, steps: list[Step], write: range, command: _core.Command
    ) -> tuple[list[Step], TransactionScripts]:
        """Decide how a transaction's scripts are run."""
        calls, loaded_scripts = await self._calls(steps, write, command)
        homes = {at: self._scripts.in_place.home(call, call.keys) for at, call in calls.items()}
        owners = set(homes.values()).union(*(step.owners for step in steps if step.is_written))
        # Recovery after a crash runs scripts without a sandbox user: nothing may be denied then.
        are_at_home = all(step.route is not StepRoute.BORROWED for step in steps) and all(
            self._scripts.runs_in_place(call)
            and not call.is_function
            and (len(owners) <= 1 or not call.rights)
            for call in calls.values()
        )
        found = []
        for at, step in enumerate(steps):
            if (call := calls.get(at)) is None:
                if at in loaded_scripts.replies and step.route is StepRoute.SCRIPT:
                    parsed = replace(step.parsed, keys=[])
                    step = replace(
                        step, parsed=parsed, route=StepRoute.ONE_INSTANCE, names=[], owners=set()
                    )
                elif (
                    step.route is StepRoute.SCRIPT
                ):  # its number of keys is wrong: any server returns the error
                    route = StepRoute.ONE_INSTANCE if are_at_home else StepRoute.BORROWED
                    owners_of_it = owners or {self._links.any_ready()}
                    step = replace(step, route=route, owners={min(owners_of_it)})
                found.append(step)
                continue
            accesses = [KeyAccess(key, reads=True, writes=call.writes) for key in call.keys]
            step = replace(step, parsed=replace(step.parsed, keys=accesses))
            if are_at_home:
                keeps = self._scripts.reach(call) is Reach.DECLARED
                found.append(self._scripts.in_place.step(step, call, keeps_to_keys=keeps))
            else:
                names = [(step.db, key, call.writes) for key in call.keys]
                found.append(replace(step, route=StepRoute.BORROWED, script=call, names=names))
        return found, loaded_scripts

    async def publish_loaded(self, steps: Iterable[Step]) -> None:
        """Load the scripts of a transaction that has run on all instances."""
        for step in steps:
            call = step.script.call if isinstance(step.script, SandboxedScript) else step.script
            if call is None:
                continue
            if call.words[0].lower() in EVALS:
                with suppress(LinkError):  # it has run
                    await self._library.prepare(call.name, call.words[1])
            self._scripts.tell(call)

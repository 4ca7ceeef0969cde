"""Plans a transaction: how each of its commands is run, by what its client may do now."""

from collections.abc import Collection, Sequence

from threadis import _core
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances.links import Words
from threadis.coordinator.lua.library import Library
from threadis.coordinator.lua.transaction_scripts import TransactionScripts
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.transaction_plan import (
    Step,
    StepRoute,
    TransactionPlan,
    find_write,
    read_steps,
)
from threadis.coordinator.transactions.script_steps import ScriptSteps


class Planner:
    """Plans transactions."""

    def __init__(
        self, execution: Execution, acl_checks: AclChecks, steps: ScriptSteps, library: Library
    ) -> None:
        self._execution, self._acl_checks = execution, acl_checks
        self._steps, self._library = steps, library

    async def plan(self, command: _core.Command) -> TransactionPlan:
        """Plan the transaction, by its client's present rights."""
        args, db = command.queued or [], command.info.db
        selects = {at for at, words in enumerate(args) if words[0].lower() == b"select"}
        stays = selects & await self._acl_checks.denied_places(command) if selects else selects
        loaded_scripts = TransactionScripts(self._library)
        steps, write = find_write(await offload(len(args), self._read, args, db, stays))
        if any(step.route is StepRoute.SCRIPT for step in steps):
            steps, loaded_scripts = await self._steps.place(steps, write, command)
        return TransactionPlan(steps, db, write, stays, loaded_scripts)

    def _read(self, commands: Sequence[Words], db: int, stays: Collection[int]) -> list[Step]:
        databases, everyone = (
            self._execution.borrowing.databases,
            self._execution.links.all_instances(),
        )
        has_pins = self._execution.colocation.has_pins
        table = self._execution.table
        return list(read_steps(commands, db, table, databases, everyone, stays, has_pins=has_pins))

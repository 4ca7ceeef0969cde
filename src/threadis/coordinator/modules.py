"""MODULE LOAD, LOADEX and UNLOAD: only at the start, because the command table is made there."""

from collections.abc import Awaitable, Callable

from threadis import _core, control, resp
from threadis.coordinator.allowed import is_allowed, refusal

OPTION = "enable-module-command"
AT_START = (
    "ERR threadis: modules are loaded at the start, so that all instances have the same commands; "
    "use --set loadmodule=PATH"
)


class Modules:
    """Says why a module is not loaded now."""

    def __init__(self, start: control.Start) -> None:
        self._granted = start.allowed[OPTION]

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Each command by its row's name."""
        return dict.fromkeys(("module|load", "module|loadex", "module|unload"), self._refuse)

    async def _refuse(self, command: _core.Command) -> bytes:
        if not is_allowed(self._granted, command.info):
            return resp.error(refusal("MODULE", OPTION))
        return resp.error(AT_START)

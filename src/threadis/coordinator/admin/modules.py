"""MODULE LOAD, LOADEX and UNLOAD are refused: the command table is built at the start."""

from collections.abc import Awaitable, Callable

from threadis import _core, resp

AT_START = (
    "ERR threadis: modules are loaded at the start, so that all instances have the same commands; "
    "use --set loadmodule=PATH"
)


def handlers() -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
    """Each command by its row's name."""
    return dict.fromkeys(("module|load", "module|loadex", "module|unload"), _refuse)


async def _refuse(_command: _core.Command) -> bytes:
    return resp.error(AT_START)

"""Long sums, beside the others' work."""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

LARGE: Final = 2000  # commands or keys: some ten milliseconds; a thread costs a tenth of one

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def offload(
    size: int,
    function: Callable[Arguments, Result],
    *args: Arguments.args,
    **options: Arguments.kwargs,
) -> Result:
    """Call a function; in a thread of its own if ``size`` is large, so that others go on.

    It may read only what nobody changes.
    """
    if size < LARGE:
        return function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)

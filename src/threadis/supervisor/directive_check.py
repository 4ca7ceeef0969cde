"""Checks whether the stock server accepts the directives of ``--set``.

Before anything is started, a server reads the directives, followed by one that no server has. So it
always ends, at the first directive that it does not accept.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from threadis.config.directives import OF_CLIENTS
from threadis.errors import ServerError
from threadis.supervisor import server_log
from threadis.supervisor.server import ServerBinary

LAST = "threadis-has-read-all"  # the directive that no server has
LIMIT = 5.0  # seconds for what takes milliseconds


def check(server: ServerBinary, directives: Mapping[str, str]) -> None:
    """Refuse a directive that no instance would start with."""
    given = {name: value for name, value in directives.items() if name not in OF_CLIENTS}
    if not given:
        return
    lines = ["port 0", *(f"{name} {value}" for name, value in given.items()), f"{LAST} 1"]
    try:
        done = subprocess.run(
            [server.path, "-"],
            input="".join(f"{line}\n" for line in lines).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # the instances will report the error
    why = server_log.refused_directive(done.stdout.decode("utf-8", "replace"))
    if why and LAST not in why:
        raise ServerError(f"no instance starts: {why}")
    module = given.get("loadmodule", "").split(maxsplit=1)
    if module and not Path(module[0].strip("\"'")).exists():  # it is looked for later than that
        raise ServerError(f"no instance starts: {module[0]} does not exist; check --set loadmodule")

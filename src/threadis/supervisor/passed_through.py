"""Owns the question whether the stock server takes what ``--set`` passes through to it.

It is asked before anything is started: it reads the directives, and behind them one that no server
has, so that it always ends, at the first one that it does not take.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from threadis.config.directives import OF_CLIENTS
from threadis.errors import ServerError
from threadis.supervisor import server_log
from threadis.supervisor.server import Server

LAST = "threadis-has-read-all"  # the directive that no server has
LIMIT = 5.0  # seconds for what takes milliseconds


def check(server: Server, directives: Mapping[str, str]) -> None:
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
        return  # the instances will say what is wrong
    why = server_log.refused_directive(done.stdout.decode("utf-8", "replace"))
    if why and LAST not in why:
        raise ServerError(f"no instance starts: {why}")
    module = given.get("loadmodule", "").split(maxsplit=1)
    if module and not Path(module[0].strip("\"'")).exists():  # it is looked for later than that
        raise ServerError(f"no instance starts: {module[0]} is not there; check --set loadmodule")

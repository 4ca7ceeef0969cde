"""Checks before anything is started or written: for ``serve``, and for ``plan``, which refuses the
same.
"""

import dataclasses
from pathlib import Path

from threadis.config import placement
from threadis.config.config import Config
from threadis.data import data_dir, layout, saved_settings
from threadis.errors import ConfigError
from threadis.supervisor import allocator, directive_check, instance_config, listeners, plan, server
from threadis.system import machine


def server_and_plan(config: Config) -> tuple[server.ServerBinary, plan.Plan]:
    """Return the stock server, and the plan."""
    chosen = server.find(config.server)
    added = allocator.environment(config.allocator, chosen)
    chosen = dataclasses.replace(chosen, environment=added)
    directive_check.check(chosen, config.set)
    planned = make_plan(config)
    placement.check_pins(config.pin_database, config.databases, len(planned.instance_cpus))
    return chosen, planned


def make_plan(config: Config) -> plan.Plan:
    """Make the plan for this machine; existing data determines the number of instances."""
    found = layout.read_layout(Path(config.dir))
    here, taken = machine.read(), machine.taken()
    planned = plan.make(here, config.instances, config.workers, config.pin, taken)
    if config.instances is not None:
        return planned
    usual = len(planned.instance_cpus)
    if found is None:
        planned.notes.append(
            f"the data will always have {usual} instance(s): there is no resharding yet; choose "
            "their number with --instances"
        )
    elif found.instances != usual:
        planned = plan.make(here, found.instances, config.workers, config.pin, taken)
        planned.notes.append(
            f"the data has {found.instances} instance(s); a new --dir would have {usual} here"
        )
    return planned


def port_or_socket(config: Config) -> None:
    """Refuse a start without any listener, and a Unix socket that is in use."""
    if config.unixsocket:
        listeners.check_unix(config.unixsocket, config.unixsocketgroup)
        return
    for name in ("unixsocketperm", "unixsocketgroup"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{name}: there is no Unix socket; add one with --unixsocket")
    if config.port == 0:
        raise ConfigError(
            "port: 0 is no TCP port; add --unixsocket PATH to serve on a Unix socket only, "
            "or choose a free port with --port auto"
        )


def dry_run(config: Config) -> plan.Plan:
    """Return the plan that ``serve`` would use; port and directory may be in use."""
    saved_settings.users(config)
    config = saved_settings.merge(config)
    _, planned = server_and_plan(config)
    port_or_socket(config)
    if config.port != 0:
        bound = listeners.Listeners()
        bound.bind_tcp(config.host, None)
        bound.close()
    data = data_dir.DataDir(config.dir, instance_config.wanted(config))
    user = data.examine(len(planned.instance_cpus), config.placement, config.pin_database)
    if user:
        planned.notes.append(f"{data.path} is in use by another threadis (process {user})")
    return planned

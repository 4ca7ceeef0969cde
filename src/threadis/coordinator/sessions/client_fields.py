"""A client in the format of CLIENT LIST."""

from threadis import _core


def line(client: _core.ClientInfo, names: list[str]) -> str:
    """Return the fields that this server version has, in its order; unknown ones are 0."""
    known = fields(client)
    return " ".join(f"{name}={known.get(name, '0')}" for name in names)


def kind_of(client: _core.ClientInfo) -> str:
    """Return its type; replicas and primaries never connect to us."""
    return "pubsub" if "P" in fields(client)["flags"] else "normal"


def fields(client: _core.ClientInfo) -> dict[str, str]:
    """Return the known fields, by the server's names."""
    flags = "".join(
        letter
        for letter, is_set in (
            ("O", client.is_monitor),
            ("P", client.sub or client.psub or client.ssub),
            ("x", client.in_multi),
            ("b", client.is_blocked),
            ("t", client.is_tracking),
            ("R", client.is_redirect_broken),
            ("B", client.tracks_all),
            ("d", client.is_dirty),
            ("A", client.is_closing),
            ("U", client.is_unix),
            ("e", client.no_evict),
            ("T", client.no_touch),
        )
        if is_set
    )
    return {
        "id": str(client.id),
        "addr": client.address,
        "laddr": client.local_address,
        "fd": str(client.fd),
        "name": client.name.decode(),
        "age": str(client.age),
        "idle": str(client.idle),
        "flags": flags or "N",
        "capa": "r" if client.can_redirect else "",
        "db": str(client.db),
        "sub": str(client.sub),
        "psub": str(client.psub),
        "ssub": str(client.ssub),
        "watch": str(client.watched),
        "multi": str(-1 if client.multi is None else client.multi),
        "qbuf": str(client.query_bytes),
        "obl": str(client.output_bytes),
        "oll": str(client.output_replies),
        "omem": str(client.output_bytes),
        "tot-mem": str(client.query_bytes + client.output_bytes),
        "events": "rw" if client.wants_write else "r",
        "cmd": client.command,
        "user": client.user.decode(errors="replace"),
        "redir": str(client.redirect) if client.is_tracking else "-1",
        "resp": str(client.resp),
        "lib-name": client.lib_name.decode(),
        "lib-ver": client.lib_version.decode(),
        "tot-net-in": str(client.total_input),
        "tot-net-out": str(client.total_output),
        "tot-cmds": str(client.total_commands),
    }
